//! What people see in a terminal: `check`.

pub mod check;
