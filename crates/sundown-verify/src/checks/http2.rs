//! HTTP/2 connections over a stop.

mod streams;
mod two_steps;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[streams::CHECK, two_steps::CHECK];
