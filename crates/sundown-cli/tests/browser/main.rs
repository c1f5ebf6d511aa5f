//! The project's pages in a real browser.
//!
//! Needs Chromium and its driver: `cargo xtask browser` finds them and runs this.

mod admin_page;
mod driver;
mod run_page;
