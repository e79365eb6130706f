//! One question to the configured resolvers, one after the other, until one gives an answer that counts.
//!
//! hickory's pool of one server does the wire: ids, source ports, repeated datagrams, EDNS, TCP when an answer is truncated, connections
//! kept open. Which server is asked, and what of an error is an answer, is decided here: a server that fails (SERVFAIL, REFUSED, silence)
//! is never the last word while another one can be asked. No cache, no hosts file, no search domains.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use thiserror::Error;

use crate::names::answer::{self, Absence, Answered};
use crate::names::lifetime::Moment;

use super::schedule::Job;

/// Port of DNS servers.
pub(crate) const PORT: u16 = u16::from_be_bytes(egress_common::dns::PORT);
/// How long one server is waited for; datagrams are repeated meanwhile.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);
/// A server that did not answer is asked last for so long.
const SHUNNED: Duration = Duration::from_secs(30);
/// Questions on one TCP connection at a time: as many as there ever are.
const PIPELINED: usize = 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    /// Neither configured nor in `resolv.conf`.
    #[error("no resolver is configured")]
    NoResolver,
    /// No datagram came back, or no connection was made in time.
    #[error("{0} did not answer")]
    Silent(SocketAddr),
    /// SERVFAIL and its like.
    #[error("{0} answered {1}")]
    Refused(SocketAddr, ResponseCode),
    /// It named other servers instead of an answer.
    #[error("{0} does not look up names for others (it answered with a referral)")]
    Referral(SocketAddr),
    /// No connection, or no readable message.
    #[error("{0}: {1}")]
    Unreadable(SocketAddr, String),
    /// Not a name that DNS can carry.
    #[error("{0} cannot be asked for")]
    Name(String),
    /// The lookup did not end by itself.
    #[error("the lookup did not end in time")]
    Endless,
    /// The lookup died.
    #[error("the lookup died ({0}); this is a bug, please report it with the log")]
    Bug(String),
    /// The answer came, and the kernel did not take it.
    #[error("the answer cannot be stored: {0}")]
    Kernel(String),
}

impl Failure {
    /// How much it tells: a server that answered says more than one that did not.
    const fn weight(&self) -> u8 {
        match self {
            Self::NoResolver => 0,
            Self::Silent(_) => 1,
            Self::Unreadable(..) => 2,
            Self::Referral(_) => 3,
            Self::Refused(..) | Self::Name(_) | Self::Endless | Self::Bug(_) | Self::Kernel(_) => 4,
        }
    }
}

/// The resolvers that are asked.
pub(crate) struct Resolvers {
    servers: Vec<Server>,
}

struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
    /// When it last failed to answer.
    silent: Mutex<Option<Moment>>,
}

impl Resolvers {
    /// `timeout` is for each server.
    pub(crate) fn new(addresses: &[SocketAddr], timeout: Duration) -> Self {
        Self { servers: addresses.iter().map(|address| Server::new(*address, timeout)).collect() }
    }

    /// Asks the servers in their order, those last that were silent lately.
    pub(crate) async fn look_up(&self, job: &Job, now: Moment) -> Result<Answered, Failure> {
        let mut name = Name::from_ascii(&job.name).map_err(|_| Failure::Name(job.name.to_string()))?;
        // A relative name would be one that search domains apply to.
        name.set_fqdn(true);
        let query = Query::query(name, job.family.record_type());
        let mut worst = Failure::NoResolver;
        for server in self.in_order(now) {
            match server.ask(&query, job).await {
                Ok(answer) => {
                    server.was_silent(None);
                    return Ok(answer);
                }
                Err(failure) => {
                    server.was_silent(matches!(failure, Failure::Silent(_) | Failure::Unreadable(..)).then_some(now));
                    if failure.weight() > worst.weight() {
                        worst = failure;
                    }
                }
            }
        }
        Err(worst)
    }

    fn in_order(&self, now: Moment) -> Vec<&Server> {
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        // Stable: equal ones stay in the order that was configured.
        servers.sort_by_key(|server| server.silent().filter(|since| *since + SHUNNED > now));
        servers
    }
}

impl Server {
    fn new(address: SocketAddr, timeout: Duration) -> Self {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        let server = NameServerConfig::new(address.ip(), true, connections.into());
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.max_active_requests = PIPELINED;
        let tls = TlsConfig {};
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config([server], context, TokioRuntimeProvider::new());
        Self { address, pool, silent: Mutex::new(None) }
    }

    fn silent(&self) -> Option<Moment> {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_silent(&self, since: Option<Moment>) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Asks with EDNS, and once more without it if the server does not know that (RFC 6891 §6.2.2).
    async fn ask(&self, query: &Query, job: &Job) -> Result<Answered, Failure> {
        let mut edns = true;
        loop {
            let mut options = DnsRequestOptions::default();
            options.use_edns = edns;
            let request = DnsRequest::from_query(query.clone(), options);
            let answered = self.pool.send(request).first_answer().await;
            match answered {
                Ok(response) => return Ok(answer::read(&response, query.name(), job.family)),
                Err(error) if edns && is_ignorant_of_edns(&error) => edns = false,
                Err(error) => return self.judge(error),
            }
        }
    }

    /// Some of what hickory calls errors is an answer.
    #[expect(clippy::wildcard_enum_match_arm, reason = "hickory's error has variants for transports that are not used")]
    fn judge(&self, error: NetError) -> Result<Answered, Failure> {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => self.judge_absence(&none),
            NetError::Dns(DnsError::ResponseCode(code)) => Err(Failure::Refused(self.address, code)),
            NetError::Timeout | NetError::NoConnections | NetError::Busy => Err(Failure::Silent(self.address)),
            error => Err(Failure::Unreadable(self.address, error.to_string())),
        }
    }

    fn judge_absence(&self, none: &NoRecords) -> Result<Answered, Failure> {
        let no_name = none.response_code == ResponseCode::NXDomain;
        // RFC 2308 §2.2: name servers without an SOA are a referral.
        if !no_name && none.soa.is_none() && none.ns.is_some() {
            return Err(Failure::Referral(self.address));
        }
        let absence = if no_name { Absence::NoName } else { Absence::NoRecords };
        Ok(Answered::Nothing { absence, ttl: none.negative_ttl })
    }
}

fn is_ignorant_of_edns(error: &NetError) -> bool {
    let NetError::Dns(DnsError::ResponseCode(code)) = error else { return false };
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS)
}
