//! The store's reading side; the store itself follows.

mod view;

pub use view::View;
