//! PriorityClass.

use super::cell::{age, count, name};
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{flag, text};

pub(super) static PRIORITY_CLASS: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Value", "The priority of its Pods."),
        Column::boolean("Global-Default", "Whether Pods without a class have it."),
        AGE,
        Column::text("PreemptionPolicy", "Whether its Pods may push out others."),
    ],
    cells: |class, now| {
        vec![
            name(class),
            count(class, &["value"]).into(),
            flag(class, &["globalDefault"]).into(),
            age(class, now),
            text(class, &["preemptionPolicy"]).into(),
        ]
    },
};
