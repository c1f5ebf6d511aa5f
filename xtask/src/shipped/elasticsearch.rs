//! A real Elasticsearch of one node, until it is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sundown_verify::process::{Process, Spawn, free_port};

use super::filebeat::Document;
use crate::ask::ask;
use crate::peers::ELASTICSEARCH;
use crate::workspace::Workspace;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many documents are sent at once.
const BATCH: usize = 500;

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

pub(super) struct Elasticsearch {
    _process: Process,
    address: SocketAddr,
}

impl Elasticsearch {
    /// Starts it, with its data in a folder.
    pub(super) async fn start(workspace: &Workspace, folder: &Path) -> anyhow::Result<Self> {
        let address = free_port()?;
        let command = ELASTICSEARCH.command(workspace, address.port());
        let mut process = Spawn::new(command.get_program())
            .args(command.get_args())
            .arg(folder.join("elasticsearch"))
            .env("JDK_JAVA_OPTIONS", "-Xmx512m")
            .start()?;
        let listens = process.wait_listening(address, PATIENCE).await;
        listens.with_context(|| process.stderr())?;
        Ok(Self {
            _process: process,
            address,
        })
    }

    pub(super) async fn put_template(&self, name: &str, template: &str) -> anyhow::Result<()> {
        let what = format!("PUT /_index_template/{name}");
        self.ask(&what, JSON, template).await.map(drop)
    }

    /// Creates documents as shippers do; returns why those were rejected that were.
    pub(super) async fn create(&self, documents: &[Document]) -> anyhow::Result<Vec<String>> {
        let mut rejected = Vec::new();
        for batch in documents.chunks(BATCH) {
            let lines = batch.iter().map(|document| {
                let action = json!({"create": {"_index": document.index}});
                format!("{action}\n{}\n", Value::Object(document.fields.clone()))
            });
            let lines: String = lines.collect();
            let answer = self.ask("POST /_bulk?refresh=true", LINES, &lines).await?;
            let items = answer["items"].as_array().context("there are no items")?;
            ensure!(items.len() == batch.len(), "{} items", items.len());
            let items = items.iter().map(|item| &item["create"]);
            rejected.extend(
                items
                    .filter(|item| item["status"] != 201)
                    .map(|item| item["error"].to_string()),
            );
        }
        Ok(rejected)
    }

    /// The documents that a query finds, the oldest first.
    pub(super) async fn find(&self, index: &str, query: Value) -> anyhow::Result<Vec<Value>> {
        let body = json!({"query": query, "sort": ["@timestamp"], "size": 100});
        let what = format!("POST /{index}/_search");
        let answer = self.ask(&what, JSON, &body.to_string()).await?;
        let hits = answer["hits"]["hits"].as_array();
        let hits = hits.context("there are no hits")?.iter();
        Ok(hits.map(|hit| hit["_source"].clone()).collect())
    }

    pub(super) async fn count(&self, index: &str, query: Value) -> anyhow::Result<usize> {
        let what = format!("POST /{index}/_count");
        let body = json!({"query": query}).to_string();
        let answer = self.ask(&what, JSON, &body).await?;
        let count = answer["count"].as_u64().context("there is no count")?;
        Ok(count as usize)
    }

    /// Deletes indices, with all that they have.
    pub(super) async fn delete(&self, indices: &str) -> anyhow::Result<()> {
        let what = format!("DELETE /{indices}");
        self.ask(&what, JSON, "").await.map(drop)
    }

    async fn ask(&self, what: &str, kind: (&str, &str), body: &str) -> anyhow::Result<Value> {
        let answer = ask(self.address, what, &[kind], body).await?;
        ensure!(answer.status < 300, "{what}: {}", answer.body);
        Ok(serde_json::from_str(&answer.body)?)
    }
}
