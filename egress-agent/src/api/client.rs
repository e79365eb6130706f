//! The command line's side of the socket.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Longest that an answer may take. An agent answers when its first apply is done.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no agent listens on {}: it does not run, or it was started with another --socket or --state-dir", .0.display())]
    NotRunning(PathBuf),
    #[error("only the agent's own user may ask it on {}: use sudo, or be root", .0.display())]
    NotAllowed(PathBuf),
    #[error("cannot ask the agent on {}: {source}", path.display())]
    Failed {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent answered {status}: {said}; is it of this version?")]
    Refused { status: StatusCode, said: String },
    #[error("the agent's answer cannot be understood: {0}; is it of this version?")]
    Answer(#[source] serde_json::Error),
}

/// Why no more lines come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The agent ended.
    ByAgent,
    /// Whoever took them had enough.
    Taken,
    /// It was to stop.
    Stopped,
}

/// A connection to the agent.
pub(crate) struct Client {
    path: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Of the agent that listens on `path`, if one does.
    pub(crate) fn new(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Failed { path: path.to_path_buf(), source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), runtime })
    }

    /// Asks for `target` and reads the answer.
    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let answer = async {
            let response = self.ask(target).await?;
            self.whole(response).await
        };
        let late = || self.failed(io::Error::new(io::ErrorKind::TimedOut, "it does not answer; see its log"));
        let bytes = self.runtime.block_on(async { timeout(PATIENCE, answer).await }).map_err(|_| late())??;
        serde_json::from_slice(&bytes).map_err(ClientError::Answer)
    }

    /// Asks for `target` and hands over each line of the answer as it comes, until `take` breaks, `stop` comes to pass or the agent ends.
    pub(crate) fn lines(
        &self,
        target: &str,
        stop: impl Future<Output = ()>,
        take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Ended, ClientError> {
        self.runtime.block_on(async {
            tokio::select! {
                ended = self.each_line(target, take) => ended,
                () = stop => Ok(Ended::Stopped),
            }
        })
    }

    async fn each_line(
        &self,
        target: &str,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Ended, ClientError> {
        let mut body = self.ask(target).await?.into_body();
        let mut pending: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            // A connection that breaks off is an agent that was killed.
            let Ok(frame) = frame else { break };
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if take(line.trim_ascii()).is_break() {
                    return Ok(Ended::Taken);
                }
            }
        }
        Ok(Ended::ByAgent)
    }

    async fn ask(&self, target: &str) -> Result<Response<Incoming>, ClientError> {
        let absent =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        let stream = UnixStream::connect(&self.path).await.map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotAllowed(self.path.clone())
            } else if absent(&error) {
                ClientError::NotRunning(self.path.clone())
            } else {
                self.failed(error)
            }
        })?;
        let failed = |error: hyper::Error| self.failed(io::Error::other(error));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        let request = Request::get(target).header("host", "egress-agent").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.failed(io::Error::other(error)))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let said = self.whole(response).await?;
        Err(ClientError::Refused { status, said: String::from_utf8_lossy(&said).into_owned() })
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let collected = response.into_body().collect().await;
        collected.map(Collected::to_bytes).map_err(|error| self.failed(io::Error::other(error)))
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Failed { path: self.path.clone(), source }
    }
}
