//! grafana/: what its panels and rules name exists, and its panels show data of the real agent.

mod names;
mod panels;
mod rules;
