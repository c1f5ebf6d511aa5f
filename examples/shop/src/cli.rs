//! The arguments of `shop`. Nothing is opened before all of them are understood.

use std::error::Error;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::database::DatabaseUrl;
use crate::orders::InventoryUrl;
use crate::telemetry::Telemetry;
use crate::{inventory, naive, orders};
use clap::{Parser, Subcommand};

/// An order service and an inventory service that lose nothing when they stop.
#[derive(Debug, Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    service: Service,

    /// Log what is at least this important to stderr, by target if wished: warn,shop=info. As JSON where that is no
    /// terminal
    #[arg(
        long,
        global = true,
        env = "SHOP_LOG",
        value_name = "LEVELS",
        default_value = "warn"
    )]
    log: String,

    /// Log to the end of this file instead
    #[arg(long, global = true, env = "SHOP_LOG_FILE", value_name = "FILE")]
    log_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Take orders, and tell inventory of them
    Orders {
        #[command(flatten)]
        common: Common,

        /// Where the inventory service is
        #[arg(
            long,
            env = "SHOP_INVENTORY",
            value_name = "URL",
            default_value = "http://127.0.0.1:8081"
        )]
        inventory: InventoryUrl,
    },
    /// Keep stock, and reserve it for orders
    Inventory {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Listen on this address; port 0 takes any free one, told on stderr
    #[arg(
        long,
        env = "SHOP_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:0"
    )]
    listen: SocketAddr,

    /// Keep the rows here: sqlite:FILE, made when it is missing, or postgres://USER@HOST/NAME
    #[arg(long, env = "SHOP_DATABASE", value_name = "URL")]
    database: DatabaseUrl,

    /// Do it the common way instead: write, answer, call in the background; plain shutdown
    #[arg(long, env = "SHOP_NAIVE")]
    naive: bool,
}

pub(crate) fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let name = match cli.service {
        Service::Orders { .. } => "orders",
        Service::Inventory { .. } => "inventory",
    };
    let telemetry = match Telemetry::start(name, &cli.log, cli.log_file.as_deref()) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("error: {}", whole(&error));
            return ExitCode::from(2);
        }
    };
    match cli.service {
        Service::Orders { common, inventory } if common.naive => {
            naive::orders(common.listen, common.database, inventory)
        }
        Service::Orders { common, inventory } => {
            orders::run(telemetry, common.listen, common.database, inventory)
        }
        Service::Inventory { common } if common.naive => {
            naive::inventory(common.listen, common.database)
        }
        Service::Inventory { common } => inventory::run(telemetry, common.listen, common.database),
    }
}

/// An error and what is behind it, on one line.
fn whole(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_opened() {
        let table: [(&[&str], bool); 8] = [
            (&["orders", "--database", "sqlite:o.db"], true),
            (
                &[
                    "orders",
                    "--database",
                    "postgres://shop@localhost/orders",
                    "--naive",
                ],
                true,
            ),
            (&["orders"], false),
            (&["orders", "--database", "mysql://localhost/orders"], false),
            (&["orders", "--database", "o.db"], false),
            (
                &["orders", "--database", "sqlite:o.db", "--listen", "8080"],
                false,
            ),
            (
                &[
                    "orders",
                    "--database",
                    "sqlite:o.db",
                    "--inventory",
                    "https://stock",
                ],
                false,
            ),
            (&["inventory", "--database", "sqlite:"], false),
        ];
        for (args, understood) in table {
            let parsed = Cli::try_parse_from([&["shop"], args].concat());
            assert_eq!(parsed.is_ok(), understood, "{args:?}");
        }
    }
}
