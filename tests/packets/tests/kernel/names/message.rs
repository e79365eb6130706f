//! DNS messages, written byte by byte.

use std::net::IpAddr;

/// A question with its answers.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) name: Vec<u8>,
    pub(super) class: u16,
    pub(super) questions: u16,
    pub(super) records: Vec<Vec<u8>>,
}

/// A name on the wire.
pub(super) fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

impl Message {
    pub(super) fn new(name: &str) -> Self {
        Self { id: 0x1234, flags: 0x8180, name: wire(name), class: 1, questions: 1, records: Vec::new() }
    }

    /// Adds a record.
    pub(super) fn record(mut self, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Self {
        let mut record = owner.to_vec();
        record.extend(kind.to_be_bytes());
        record.extend(1_u16.to_be_bytes());
        record.extend(ttl.to_be_bytes());
        record.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        record.extend(data);
        self.records.push(record);
        self
    }

    /// Adds address records of the question's name.
    pub(super) fn answers(mut self, addresses: &[IpAddr], ttl: u32) -> Self {
        for address in addresses {
            self = match address {
                IpAddr::V4(address) => self.record(&[0xc0, 12], 1, ttl, &address.octets()),
                IpAddr::V6(address) => self.record(&[0xc0, 12], 28, ttl, &address.octets()),
            };
        }
        self
    }

    pub(super) fn query(&self) -> Vec<u8> {
        self.message(0x0100, &[])
    }

    pub(super) fn reply(&self) -> Vec<u8> {
        self.message(self.flags, &self.records)
    }

    fn message(&self, flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.questions.to_be_bytes());
        bytes.extend(u16::try_from(records.len()).expect("few").to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.name);
        bytes.extend([0, 1]);
        bytes.extend(self.class.to_be_bytes());
        bytes.extend(records.concat());
        bytes
    }
}
