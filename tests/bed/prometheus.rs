//! A real Prometheus, and what it is asked.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::process::Running;
use super::{free_address, http, repository, tool};

pub struct Prometheus {
    _running: Running,
    address: SocketAddr,
}

/// The job of otel-collector/prometheus.yaml that scrapes this address instead, each second. The label `cluster` says
/// which job it was.
pub fn shipped_job(job: &str, target: SocketAddr) -> Value {
    // What is for others is there as a comment.
    let text = fs::read_to_string(repository().join("otel-collector/prometheus.yaml")).expect("shipped");
    let lines = text.lines().map(|line| match line.strip_prefix("  # ") {
        Some(rest) if rest.starts_with("- job_name:") || rest.starts_with("  ") => format!("  {rest}\n"),
        _ => format!("{line}\n"),
    });
    let config: Value = serde_saphyr::from_str(&lines.collect::<String>()).expect("YAML");
    let jobs = config["scrape_configs"].as_array().expect("jobs");
    let mut found =
        jobs.iter().find(|j| j["job_name"] == job).unwrap_or_else(|| panic!("no job {job}")).clone();
    found["static_configs"] = json!([{"targets": [target.to_string()], "labels": {"cluster": job}}]);
    (found["scrape_interval"], found["scrape_timeout"]) = ("1s".into(), "1s".into());
    found
}

impl Prometheus {
    /// With these jobs and rule files, evaluated each second.
    pub fn start(dir: &Path, jobs: &[Value], rules: &[&Path]) -> Prometheus {
        let config =
            json!({"global": {"evaluation_interval": "1s"}, "scrape_configs": jobs, "rule_files": rules});
        Prometheus::with(dir, &config, free_address(), &[])
    }

    /// At this address, with its OTLP receiver as otel-collector/gateway.yaml wants it.
    pub fn receiving(dir: &Path, address: SocketAddr) -> Prometheus {
        let text = fs::read_to_string(repository().join("otel-collector/gateway.yaml")).expect("shipped");
        let comments = text.lines().filter_map(|line| Some(format!("{} ", line.strip_prefix('#')?.trim())));
        let comments: String = comments.collect();
        let (_, from) = comments.split_once("promote_resource_attributes: [").expect("its comment");
        let (attributes, _) = from.split_once(']').expect("its end");
        let attributes: Vec<_> = attributes.split(',').map(str::trim).collect();
        let config = json!({"otlp": {"promote_resource_attributes": attributes}});
        Prometheus::with(dir, &config, address, &["--web.enable-otlp-receiver"])
    }

    fn with(dir: &Path, config: &Value, address: SocketAddr, flags: &[&str]) -> Prometheus {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("written");
        let mut running = Running::start(
            tool("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
                .arg(format!("--web.listen-address={address}"))
                .args(flags),
        );
        running.says("Server is ready to receive web requests");
        Prometheus { _running: running, address }
    }

    /// What the API says to this; `Err` is Prometheus' own complaint.
    pub fn api(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let encoded = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let parameters: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let answer = http::get(self.address, &format!("/api/v1/{what}?{}", parameters.join("&")), "");
        let mut answer: Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }
}
