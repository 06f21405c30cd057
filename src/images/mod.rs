//! What an image is made of: a Dockerfile's subset that needs no Docker, and a tag made of the content.
//!
//! Never asks which provider will load it.

pub mod digest;
pub mod dockerfile;
pub mod recipe;

pub use recipe::Recipe;
