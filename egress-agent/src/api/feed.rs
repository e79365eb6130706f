//! Events as they come, to one listener at a time: a JSON object per line. A listener that is too slow is told how many it missed.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::events::Record;
use crate::vitals::Vitals;

/// Which events are wanted; what is left out does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Filter {
    /// `denied`; `audit` for both `would-deny` and `would-allow`; `allowed`. All but the last if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// Without the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// `default/curl`, or the name of a cluster policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    /// Only destinations of which a name is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dns: bool,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Denied,
    Audit,
    Allowed,
}

/// A line of the feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Missed {
        /// Events that this listener was too slow for.
        missed: u64,
    },
    Record(Box<Record>),
}

impl Filter {
    pub(crate) fn admits(&self, record: &Record) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| found == Some(wanted));
        let outcome = match self.outcome {
            None => !record.is_allowed(),
            Some(Outcome::Allowed) => record.is_allowed(),
            Some(Outcome::Denied) => record.outcome == "denied",
            Some(Outcome::Audit) => record.outcome.starts_with("would-"),
        };
        outcome
            && (!self.dns || record.name.is_some())
            && is(&self.namespace, record.namespace.as_deref())
            && is(&self.pod, Some(&record.pod))
            && is(&self.policy, record.policy.as_deref())
    }
}

/// `GET /v1/events`.
pub(super) async fn events(State(vitals): State<Arc<Vitals>>, Query(filter): Query<Filter>) -> Response {
    let stream = futures_stream(vitals.listen(), filter);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::new(StreamBody::new(stream))).into_response()
}

/// The lines of a listener. Begins with an empty one, which says that it listens.
fn futures_stream(
    receiver: Receiver<Arc<Record>>,
    filter: Filter,
) -> impl futures_core::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let hello = Some(Bytes::from_static(b"\n"));
    futures_util::stream::unfold((receiver, filter, hello), |(mut receiver, filter, hello)| async move {
        if let Some(hello) = hello {
            return Some((Ok(Frame::data(hello)), (receiver, filter, None)));
        }
        let line = next(&mut receiver, &filter).await?;
        Some((Ok(Frame::data(line)), (receiver, filter, None)))
    })
}

async fn next(receiver: &mut Receiver<Arc<Record>>, filter: &Filter) -> Option<Bytes> {
    loop {
        let json = match receiver.recv().await {
            Ok(record) if filter.admits(&record) => serde_json::to_vec(record.as_ref()),
            Ok(_) => continue,
            Err(RecvError::Lagged(missed)) => serde_json::to_vec(&Line::Missed { missed }),
            Err(RecvError::Closed) => return None,
        };
        let mut line = json.ok()?;
        line.push(b'\n');
        return Some(line.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sample;

    #[test]
    fn a_filter_admits_what_fits_in_every_respect() {
        let record = sample();
        let filter = |query: &str| serde_urlencoded::from_str::<Filter>(query).unwrap();
        for fits in ["", "outcome=denied", "namespace=default&pod=curl", "policy=default%2Fcurl"] {
            assert!(filter(fits).admits(&record), "{fits}");
        }
        for other in ["outcome=audit", "namespace=other", "pod=default/curl", "policy=curl", "namespace=default&pod=x"]
        {
            assert!(!filter(other).admits(&record), "{other}");
        }
        assert!(filter("outcome=audit").admits(&Record { outcome: "would-deny".into(), ..record }));
        let allowed = Record { outcome: "allowed".into(), name: Some("www.foo.com".into()), ..sample() };
        assert!(!filter("").admits(&allowed) && filter("outcome=allowed").admits(&allowed));
        assert!(filter("outcome=allowed&dns=true").admits(&allowed) && !filter("dns=true").admits(&sample()));
        assert!(serde_urlencoded::from_str::<Filter>("nonsense=1").is_err());
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_many_events_it_missed() {
        let sender = tokio::sync::broadcast::Sender::new(2);
        let mut receiver = sender.subscribe();
        let sent = Arc::new(sample());
        for _ in 0..5 {
            sender.send(Arc::clone(&sent)).unwrap();
        }
        let line = next(&mut receiver, &Filter::default()).await.unwrap();
        assert_eq!(line, "{\"missed\":3}\n");
        let line = next(&mut receiver, &Filter::default()).await.unwrap();
        let Line::Record(record) = serde_json::from_slice(&line).unwrap() else { panic!("{line:?}") };
        assert_eq!(*record, *sent);
    }
}
