//! What hickory-proto makes of a message, and a naive walk over its records.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Header, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// A message as hickory reads it.
#[derive(Default)]
pub(crate) struct Judged {
    /// A whole answer without error to one question.
    pub(crate) is_reply: bool,
    /// Name, in the lower case that hickory gives it, and type.
    pub(crate) question: Option<(Name, RecordType)>,
    records: Vec<Record>,
}

impl Judged {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut decoder = BinDecoder::new(bytes);
        let Ok(header) = Header::read(&mut decoder) else { return Self::default() };
        let about = &header.metadata;
        let is_reply = about.message_type == MessageType::Response
            && about.op_code == OpCode::Query
            && !about.truncation
            && about.response_code.low() == ResponseCode::NoError.low()
            && header.counts.queries == 1;
        let Ok(question) = Query::read(&mut decoder) else { return Self::default() };
        let mut judged = Self {
            is_reply: is_reply && question.query_class() == DNSClass::IN,
            question: Some((question.name().to_lowercase(), question.query_type())),
            records: Vec::new(),
        };
        for _ in 0..header.counts.answers {
            let start = u16::try_from(decoder.index()).expect("a short message");
            if let Ok(record) = Record::read(&mut decoder) {
                judged.records.push(record);
                continue;
            }
            // What hickory does not understand teaches it nothing; the records behind it may.
            decoder = decoder.clone(start);
            if skip(&mut decoder).is_none() {
                break;
            }
        }
        judged
    }

    /// Addresses, with their TTL, of every name that the question leads to by CNAMEs.
    pub(crate) fn addresses(&self) -> BTreeSet<(IpAddr, u32)> {
        let Some((question, _)) = &self.question else { return BTreeSet::new() };
        let mut names = vec![question.clone()];
        let mut at = 0;
        while let Some(name) = names.get(at).cloned() {
            for record in self.of(&name) {
                if let RData::CNAME(target) = &record.data
                    && !names.contains(&target.0)
                {
                    names.push(target.0.clone());
                }
            }
            at += 1;
        }
        let ttl = |record: &Record| if record.ttl > i32::MAX.unsigned_abs() { 0 } else { record.ttl };
        let address = |record: &Record| match &record.data {
            RData::A(address) => Some((IpAddr::from(address.0), ttl(record))),
            RData::AAAA(address) => Some((IpAddr::from(address.0).to_canonical(), ttl(record))),
            _ => None,
        };
        names.iter().flat_map(|name| self.of(name)).filter_map(address).collect()
    }

    fn of<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.dns_class == DNSClass::IN && record.name == *name)
    }
}

/// Steps over a record by its length.
fn skip(decoder: &mut BinDecoder<'_>) -> Option<()> {
    Name::read(decoder).ok()?;
    for _ in 0..4 {
        decoder.read_u16().ok()?;
    }
    let length = decoder.read_u16().ok()?.unverified();
    decoder.read_slice(length.into()).ok()?;
    Some(())
}
