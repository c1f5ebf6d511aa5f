//! HTTP/2 connections over a stop.

mod streams;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[streams::CHECK];
