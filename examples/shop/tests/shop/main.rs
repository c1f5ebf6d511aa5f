//! The shop as its users meet it: two processes, their databases, real signals.

mod harness;

mod logs;
mod routes;
mod stops;
mod traces;
