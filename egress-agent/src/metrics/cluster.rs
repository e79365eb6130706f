//! How the API server is watched; nothing where the agent reads files.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::kube::Figures;
use crate::vitals::Vitals;

use super::families::{Families, ResourceLabels};

pub(super) fn add(families: &mut Families, vitals: &Vitals) {
    let Some(health) = vitals.cluster() else { return };
    let figures = health.figures();
    let rows = |value: fn(&Figures) -> u64| {
        let row =
            |(resource, figures): (&String, &Figures)| (ResourceLabels { resource: resource.clone() }, value(figures));
        figures.iter().map(row).collect::<Vec<_>>()
    };
    let up = rows(|figures| u64::from(figures.up));
    families.gauges("api_watch_up", "0 while a kind of objects cannot be watched, else 1", up);
    let synced = rows(|figures| u64::from(figures.synced));
    families.gauges("api_watch_synced", "1 once every object of a kind was listed", synced);
    let heard = rows(|figures| figures.heard.map_or(0, seconds));
    families.gauges("api_watch_last_heard_timestamp_seconds", "When the API server last told of a kind", heard);
    families.counters("api_watch_events", "Objects that the API server told of", rows(|figures| figures.events));
    families.counters("api_watch_errors", "Watches and listings that failed", rows(|figures| figures.errors));
    let help = "Listings; each after the first because a watch could not be continued";
    families.counters("api_watch_listings", help, rows(|figures| figures.listings));
    let help = "Objects that could not be read, and keep their last good version";
    families.counters("api_watch_unreadable", help, rows(|figures| figures.unreadable));
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
