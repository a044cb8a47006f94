//! What a gateway tells of its requests: metrics, and one line of log each.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::api::name::{FlowName, NamespaceName};
use crate::metrics::Metrics;

/// The upper bounds of the durations, in seconds.
const BOUNDS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0];

/// The metrics of a gateway.
#[derive(Clone, Debug)]
pub struct Meter {
    requests: Family<Labels, Counter>,
    durations: Histogram,
    in_flight: Gauge,
    /// How many routes there are.
    pub routes: Gauge,
    /// The version that the route table is at.
    pub version: Gauge<u64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    code: &'static str,
    method: &'static str,
}

impl Meter {
    /// The metrics, registered.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let meter = Self {
            requests: Family::default(),
            durations: Histogram::new(BOUNDS),
            in_flight: Gauge::default(),
            routes: Gauge::default(),
            version: Gauge::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("gateway");
            registry.register("requests", "Requests by answer and method", meter.requests.clone());
            registry.register(
                "request_duration_seconds",
                "Time until a request is answered",
                meter.durations.clone(),
            );
            registry.register(
                "requests_in_flight",
                "Requests that are being answered",
                meter.in_flight.clone(),
            );
            registry.register("routes", "Flows whose webhook is served", meter.routes.clone());
            registry.register(
                "route_table_version",
                "The version that the routes are at",
                meter.version.clone(),
            );
        });
        meter
    }

    /// A request begins.
    #[must_use]
    pub fn begin<'a>(&self, parts: &'a Parts, request_id: &'a str) -> Record<'a> {
        self.in_flight.inc();
        Record {
            meter: self.clone(),
            parts,
            request_id,
            begun: Instant::now(),
            flow: None,
            bytes: 0,
            status: None,
        }
    }
}

/// What is known of a request. When it is dropped it is told, of one too whose sender left before it was answered.
#[derive(Debug)]
pub struct Record<'a> {
    meter: Meter,
    parts: &'a Parts,
    request_id: &'a str,
    begun: Instant,
    /// The Flow that it is for, where there is one.
    pub flow: Option<(NamespaceName, FlowName)>,
    /// How long its body is.
    pub bytes: usize,
    /// How it is answered.
    pub status: Option<StatusCode>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        let labels = Labels { code: code(self.status), method: method(&self.parts.method) };
        self.meter.in_flight.dec();
        self.meter.durations.observe(duration.as_secs_f64());
        self.meter.requests.get_or_create(&labels).inc();
        let (namespace, flow) =
            self.flow.as_ref().map(|(namespace, flow)| (namespace.as_str(), flow.as_str())).unzip();
        tracing::info!(
            method = %self.parts.method,
            // Without the query, which may hold secrets.
            path = self.parts.uri.path(),
            status = self.status.map(|status| status.as_u16()),
            duration_ms = millis(duration),
            bytes = self.bytes,
            request_id = self.request_id,
            namespace,
            flow,
            "{}", if self.status.is_some() { "Answered" } else { "The sender left" }
        );
    }
}

/// Milliseconds with their thousandths.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The method as a label: a sender may invent others without end.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

fn code(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16()) {
        Some(200) => "200",
        Some(400) => "400",
        Some(404) => "404",
        Some(405) => "405",
        Some(408) => "408",
        Some(413) => "413",
        Some(415) => "415",
        Some(503) => "503",
        Some(_) => "other",
        None => "left",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_when_it_is_over_under_a_label_of_a_closed_set() {
        let metrics = Metrics::default();
        let meter = Meter::new(&metrics);
        let parts = http::Request::builder().method("BREW").body(()).unwrap().into_parts().0;
        let mut record = meter.begin(&parts, "r-1");
        assert!(metrics.text().contains("millrace_gateway_requests_in_flight 1\n"));
        record.status = Some(StatusCode::NOT_FOUND);
        drop(record);
        drop(meter.begin(&parts, "r-2"));
        let text = metrics.text();
        for line in [
            "millrace_gateway_requests_in_flight 0\n",
            "millrace_gateway_requests_total{code=\"404\",method=\"other\"} 1\n",
            "millrace_gateway_requests_total{code=\"left\",method=\"other\"} 1\n",
            "millrace_gateway_request_duration_seconds_count 2\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
