//! What people see in a terminal: `check`, `birth`, `who`.
//!
//! Inside belongs what is asked once and answered. What goes on by itself does not: the agent, the reconciler, `top`.

pub mod birth;
pub mod check;
pub mod who;
