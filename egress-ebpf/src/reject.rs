//! Placeholder while bringing up.
use crate::endpoint::Judged;
use crate::skb::Skb;
pub fn answer(_skb: &Skb, _endpoint: &Judged) -> i32 { 2 }
