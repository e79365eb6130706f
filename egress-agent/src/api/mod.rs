//! What the running agent answers: HTTP/1.1 over a Unix socket that only its owner may use.
//!
//! ```text
//! GET /v1/status     the answer of `egress-agent status -o json`
//! GET /v1/events     records as they come, a JSON object per line; filtered by outcome, namespace, pod, policy
//! GET /v1/rules      what every rule has counted
//! GET /v1/observed   what policies under Audit would have refused, of a namespace
//! GET /metrics       the text of --metrics-address
//! ```
//!
//! Paths carry the version of what they answer, and so does every answer. Started by [`agent`](crate::agent); asked by the command line
//! through [`Client`], by anything else with `curl --unix-socket`.

mod client;
mod feed;
mod socket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tracing::error;

use crate::cli::chain;
use crate::datapath::DatapathError;
use crate::status::StatusView;
use crate::vitals::{Asked, RuleKey, Tally, Vitals};

pub(crate) use client::{Client, ClientError, Ended};
pub(crate) use feed::{Filter, Line, Outcome};
pub(crate) use socket::Socket;

/// Answers until the process ends.
pub(crate) async fn serve(listener: UnixListener, vitals: Arc<Vitals>) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(feed::events))
        .route("/v1/rules", get(rules))
        .route("/v1/observed", get(observed))
        .route("/metrics", get(crate::metrics::metrics))
        .with_state(vitals);
    if let Err(failure) = axum::serve(listener, router).await {
        error!(error = chain(&failure), "the socket is not served any more");
    }
}

async fn status(State(vitals): State<Arc<Vitals>>) -> Response {
    answer(move || StatusView::of_running(&vitals)).await
}

/// What every rule has counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RulesAnswer {
    pub(crate) version: u32,
    pub(crate) node: String,
    pub(crate) rules: Vec<RuleTotal>,
}

/// What one rule has counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RuleTotal {
    #[serde(flatten)]
    pub(crate) key: RuleKey,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

async fn rules(State(vitals): State<Arc<Vitals>>) -> Response {
    answer(move || {
        let rules = vitals.rules().into_iter().map(|(key, tally)| RuleTotal { key, tally }).collect();
        Ok::<_, DatapathError>(RulesAnswer { version: 1, node: vitals.node().to_owned(), rules })
    })
    .await
}

async fn observed(State(vitals): State<Arc<Vitals>>, Query(since): Query<Asked>) -> Response {
    axum::Json(vitals.observed(&since)).into_response()
}

/// Runs `work`, which reads maps, beside the event reader, and answers with what it returns.
async fn answer<T: Serialize + Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => axum::Json(answer).into_response(),
        Ok(Err(failure)) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&failure)).into_response(),
        Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, chain(&failure)).into_response(),
    }
}
