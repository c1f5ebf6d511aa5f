//! HTTP/1.1 connections over a stop.

mod cut_stream;
mod expect;
mod half_closed;
mod half_head;
mod idle;
mod in_flight;
mod keep_alive;
mod no_5xx;
mod pipeline;
mod preconnected;
mod reuse_race;
mod said_close;
mod slow_reader;
mod told_close;
mod upload;

use crate::check::Check;

pub(super) static CHECKS: &[Check] = &[
    in_flight::CHECK,
    reuse_race::CHECK,
    said_close::CHECK,
    upload::CHECK,
    slow_reader::CHECK,
    half_head::CHECK,
    preconnected::CHECK,
    pipeline::CHECK,
    idle::CHECK,
    expect::CHECK,
    half_closed::CHECK,
    no_5xx::CHECK,
    cut_stream::CHECK,
    told_close::CHECK,
    keep_alive::CHECK,
];
