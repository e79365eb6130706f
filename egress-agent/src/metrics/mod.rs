//! Metrics for Prometheus, and the two questions of a kubelet: `/metrics`, `/healthz`, `/readyz` on `--metrics-address`.
//!
//! Nothing here is counted twice: what the kernel counts is read from its maps at each scrape. docs/metrics.md lists every metric.
//! Started by [`agent`](crate::agent).

mod cluster;
mod families;
mod gather;
mod names;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::cli::chain;
use crate::vitals::Vitals;

/// Format of the text (<https://prometheus.io/docs/specs/om/open_metrics_spec>).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A reconciler that has ended no round for this long hangs: it looks again every half minute.
const LONGEST_SILENCE: Duration = Duration::from_mins(5);

/// Answers until the process ends.
pub(crate) async fn serve(listener: TcpListener, vitals: Arc<Vitals>) {
    let address = listener.local_addr().ok();
    info!(address = address.map(|address: SocketAddr| address.to_string()), "metrics are served");
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(vitals);
    if let Err(failure) = axum::serve(listener, router).await {
        error!(error = chain(&failure), "metrics are not served any more");
    }
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(vitals): State<Arc<Vitals>>) -> Response {
    match tokio::task::spawn_blocking(move || gather::text(&vitals)).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(failure)) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&failure)).into_response(),
        Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&failure)).into_response(),
    }
}

/// `GET /healthz`: whether a restart would help.
async fn health(State(vitals): State<Arc<Vitals>>) -> Response {
    let idle = vitals.rounds().idle();
    if idle < LONGEST_SILENCE {
        return "ok\n".into_response();
    }
    let said = format!("no round of the reconciler has ended for {} s\n", idle.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, said).into_response()
}

/// `GET /readyz`: whether the kernel enforces what the agent was last told.
async fn readiness(State(vitals): State<Arc<Vitals>>) -> Response {
    let rounds = vitals.rounds();
    let said = match (&rounds.last, &rounds.error) {
        (Some(_), None) => return "ok\n".into_response(),
        (_, Some(error)) => format!("the last round failed: {error}\n"),
        (None, None) => "nothing was applied yet\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, said).into_response()
}
