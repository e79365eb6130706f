//! Compiled tables in the kernel: built aside, made reachable under a slot, described beside it, and freed after their last use.
//!
//! Invariant: a table under a published slot never changes. What is realized here was confirmed by the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aya::maps::MapData;
use egress_common::abi::map;
use egress_common::endpoint::TableRef;
use egress_common::names::NameLeaf;
use egress_common::table::{Counter, TableInfo, flag};
use egress_policy::compile::Table;
use egress_policy::describe::{Describing, TableDescription};
use egress_policy::trie::{Item, items4, items6};

use super::counters::CounterRegions;
use super::descriptions;
use super::error::DatapathError;
use super::grace::Grace;
use super::inner;
use super::leaves::NameLeaves;
use super::maps::{self, TableInfos};
use super::outer::{Change, Outer};
use super::pins::{self, Pins};
use super::tries::{self, Like, Tries};
use super::{DesiredNames, DesiredTable};

/// Length of a class array from which on there is room behind it, for the next versions of the table.
const SPARE_CLASSES_FROM: usize = 4096;

/// What makes two tables the same one.
pub(super) type TableKey = ([u8; 32], bool);

/// A table as the kernel has it.
#[derive(Debug)]
pub(super) struct RealizedTable {
    pub(super) reference: TableRef,
    pub(super) info: TableInfo,
    pub(super) description: Arc<Describing>,
    /// Whether its description is pinned.
    described: bool,
    reject: bool,
    /// What it was made from; `None` if another agent made it.
    made_from: Option<Arc<DesiredTable>>,
    /// Its class array, which the next version of it may go on with.
    classes: Option<ClassArray>,
    /// What its array of leaves holds, by name id; `None` if that is not known.
    leaves: Option<Vec<NameLeaf>>,
}

/// A class array, and how much of it the tables that have it in common use.
#[derive(Clone, Debug)]
struct ClassArray {
    room: usize,
    filled: Arc<AtomicUsize>,
}

impl ClassArray {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.filled, &other.filled)
    }
}

impl RealizedTable {
    fn has(&self, classes: &ClassArray) -> bool {
        self.classes.as_ref().is_some_and(|own| own.is(classes))
    }
}

/// What a table counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Its rules.
    pub description: Arc<TableDescription>,
    /// By rank; with `shared` one for everything allowed and one for everything denied.
    pub counters: Vec<Counter>,
    /// Whether there was no room for a counter per rule.
    pub shared: bool,
}

/// Every table version that the kernel holds.
pub(super) struct Tables {
    pins: Pins,
    tables4: Outer,
    tables6: Outer,
    classes: Outer,
    tries: Tries,
    /// Prefixes of one family from which on they are a trie.
    trie_from: usize,
    leaves: NameLeaves,
    infos: TableInfos,
    counters: CounterRegions,
    grace: Grace,
    realized: BTreeMap<TableKey, RealizedTable>,
    /// Slots whose contents cannot be trusted: left by a crash, cleared before they are used.
    free: BTreeSet<u32>,
    /// Free slots that still have the maps of a table, because they are also those of the next version of a table that is in use.
    ready: BTreeMap<u32, ClassArray>,
    /// Tables that endpoints have and nobody can describe: see [`keep`](Self::keep).
    unknown: BTreeMap<SlotGeneration, TableInfo>,
    next_generation: u32,
    /// Whether tables are made to tell of allowed connections.
    tell_allowed: bool,
}

impl Tables {
    /// Reads what an earlier agent left.
    pub(super) fn adopt(pins: &Pins, trie_from: usize) -> Result<Self, DatapathError> {
        let infos: TableInfos = maps::open(pins, map::TABLE_INFO)?;
        let mut tables = Self {
            tables4: Outer::open(pins, map::TABLES4)?,
            tables6: Outer::open(pins, map::TABLES6)?,
            classes: Outer::open(pins, map::CLASSES)?,
            tries: Tries::open(pins)?,
            trie_from,
            leaves: NameLeaves::open(pins)?,
            counters: CounterRegions::open(pins)?,
            grace: Grace::new()?,
            free: (0..infos.len()).collect(),
            infos,
            realized: BTreeMap::new(),
            ready: BTreeMap::new(),
            unknown: BTreeMap::new(),
            next_generation: 1,
            tell_allowed: false,
            pins: pins.clone(),
        };
        tables.read_infos()?;
        Ok(tables)
    }

    fn read_infos(&mut self) -> Result<(), DatapathError> {
        for slot in 0..self.infos.len() {
            let info = self.info(slot)?;
            if info.generation == 0 {
                continue;
            }
            self.next_generation = self.next_generation.max(info.generation.saturating_add(1));
            let Some(pinned) = descriptions::read::<TableDescription>(&self.pins, slot)? else {
                continue;
            };
            if pinned.generation != info.generation {
                continue;
            }
            let mut fingerprint = [0; 32];
            if hex::decode_to_slice(&pinned.description.fingerprint, &mut fingerprint).is_err() {
                continue;
            }
            let key = (fingerprint, pinned.reject);
            let reference = TableRef { slot, generation: info.generation };
            self.counters.reserve(&info);
            self.free.remove(&slot);
            let description = Arc::new(pinned.description.ready());
            let reject = pinned.reject;
            let table = RealizedTable {
                reference,
                info,
                description,
                described: true,
                reject,
                made_from: None,
                classes: None,
                leaves: None,
            };
            self.realized.insert(key, table);
        }
        Ok(())
    }

    fn info(&self, slot: u32) -> Result<TableInfo, DatapathError> {
        let bytes = self.infos.get(&slot, 0).map_err(DatapathError::map(map::TABLE_INFO))?;
        Ok(zerocopy::transmute!(bytes))
    }

    /// The last step of taking over. Keeps the tables that endpoints have although their description cannot be read, as that of another agent version may be:
    /// packets are judged by them until their endpoints get others.
    pub(super) fn keep(&mut self, used: &BTreeSet<SlotGeneration>) -> Result<(), DatapathError> {
        for &(slot, generation) in used.iter().filter(|(_, generation)| *generation != 0) {
            let info = self.info(slot)?;
            if info.generation == generation && self.free.remove(&slot) {
                self.counters.reserve(&info);
                self.unknown.insert((slot, generation), info);
            }
        }
        // What an agent left that died between a table and its first endpoint, or had ready. Slots that never had a table are not looked at: each
        // look waits for all programs before Linux 6.8.
        for slot in self.free.clone() {
            if self.info(slot)?.generation > 0 {
                self.remove(slot)?;
            }
        }
        let known = self.realized.values().map(|table| &table.info).chain(self.unknown.values());
        let damaged = self.tries.adopt(known);
        self.withdraw(&damaged)
    }

    /// Lets nothing lead any more to tries that are damaged: what they are made of is free.
    fn withdraw(&mut self, damaged: &BTreeSet<u32>) -> Result<(), DatapathError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let realized = self.realized.values_mut().map(|table| (table.reference.slot, &mut table.info));
        let unknown = self.unknown.iter_mut().map(|((slot, _), info)| (*slot, info));
        for (slot, info) in realized.chain(unknown) {
            if tries::withdraw(info, damaged) {
                store(&mut self.infos, slot, info)?;
            }
        }
        self.grace.wait()
    }

    /// Lets the first packet of every allowed connection be told, or not, also by the tables that are there.
    pub(super) fn tell_allowed(&mut self, tell: bool) -> Result<(), DatapathError> {
        self.tell_allowed = tell;
        for table in self.realized.values_mut() {
            let flags =
                if tell { table.info.flags | flag::TELL_ALLOWED } else { table.info.flags & !flag::TELL_ALLOWED };
            if flags != table.info.flags {
                table.info.flags = flags;
                // The same constants but for one bit, which no verdict depends on.
                store(&mut self.infos, table.reference.slot, &table.info)?;
            }
        }
        Ok(())
    }

    /// The table of a generation, if the kernel has it.
    pub(super) fn of_generation(&self, generation: u32) -> Option<&RealizedTable> {
        self.realized.values().find(|table| table.reference.generation == generation)
    }

    /// Number of tables.
    pub(super) fn len(&self) -> usize {
        self.realized.len()
    }

    /// Puts a table into the kernel, unless it is there, and returns where. `before`: the table that it is the next version of.
    pub(super) fn realize(
        &mut self,
        desired: &Arc<DesiredTable>,
        names: &DesiredNames,
        before: Option<TableRef>,
    ) -> Result<TableRef, DatapathError> {
        let key = desired.key();
        if let Some(table) = self.realized.get_mut(&key) {
            if desired.table.has_names() {
                table.leaves =
                    Some(self.leaves.update(table.reference.slot, table.leaves.take(), &desired.table, names)?);
            }
            return Ok(table.reference);
        }
        let slot = self.slot_for(before).ok_or(DatapathError::Full {
            what: "the table map",
            needed: self.realized.len() as u64 + 1,
            limit: u64::from(self.infos.len()),
            advice: "fewer distinct rule lists, or more tables",
        })?;
        let reference = TableRef { slot, generation: self.next_generation };
        let (counter_base, mut flags) = self.counters.allocate(desired.table.rules)?;
        if desired.reject {
            flags |= flag::REJECT;
        }
        if self.tell_allowed {
            flags |= flag::TELL_ALLOWED;
        }
        if desired.table.has_names() {
            flags |= flag::NAMES;
        }
        let mut info = TableInfo {
            generation: reference.generation,
            counter_base,
            rules: desired.table.rules,
            flags,
            head_rules: desired.table.head_rules,
            prefixes: u32::try_from(desired.table.prefixes()).unwrap_or(u32::MAX),
            ..TableInfo::default()
        };
        let installed = match self.place(&desired.table, before) {
            Ok((placed, tries)) => {
                placed.note(&mut info);
                self.install(slot, info, tries, desired, names, before)
            }
            Err(error) => Err(error),
        };
        let (classes, leaves) = match installed {
            Ok(installed) => installed,
            Err(error) => {
                self.counters.release(&info);
                self.tries.free(&info);
                let _ = self.remove(slot);
                return Err(error);
            }
        };
        self.free.remove(&slot);
        self.ready.remove(&slot);
        self.next_generation += 1;
        let table = RealizedTable {
            reference,
            info,
            description: Arc::clone(&desired.description),
            described: false,
            reject: desired.reject,
            made_from: Some(Arc::clone(desired)),
            classes: Some(classes),
            leaves,
        };
        self.realized.insert(key, table);
        Ok(reference)
    }

    /// A free slot, which has the maps of the next version of `before` already if there is one.
    fn slot_for(&self, before: Option<TableRef>) -> Option<u32> {
        let classes = of_reference(&self.realized, before).and_then(|before| before.classes.as_ref());
        let ready = self.ready.iter().find(|(_, ready)| classes.is_some_and(|classes| classes.is(ready)));
        ready.map(|(slot, _)| *slot).or_else(|| self.free.first().copied())
    }

    /// Pins the descriptions of the tables that have none yet. Returns those where that failed.
    pub(super) fn describe(&mut self) -> Vec<(TableRef, DatapathError)> {
        let mut failed = Vec::new();
        for table in self.realized.values_mut().filter(|table| !table.described) {
            match descriptions::write(&self.pins, table.reference, table.reject, &table.description) {
                Ok(()) => table.described = true,
                Err(error) => failed.push((table.reference, error)),
            }
        }
        failed
    }

    /// Stores the prefixes of the families that have many as tries, and says which.
    fn place(&mut self, table: &Table, before: Option<TableRef>) -> Result<(tries::Placed, [bool; 2]), DatapathError> {
        let many = [table.prefixes4.len(), table.prefixes6.len()].map(|count| count >= self.trie_from);
        let items = |many: bool, items: fn(&Table) -> Vec<Item>| many.then(|| items(table));
        let [many4, many6] = many;
        let before = of_reference(&self.realized, before);
        let like = before.and_then(|before| Like::new(&before.info, &before.made_from.as_ref()?.table));
        let items = [items(many4, items4), items(many6, items6)];
        Ok((self.tries.place(&items, table, like.as_ref())?, many))
    }

    fn install(
        &mut self,
        slot: u32,
        info: TableInfo,
        [trie4, trie6]: [bool; 2],
        desired: &DesiredTable,
        names: &DesiredNames,
        before: Option<TableRef>,
    ) -> Result<(ClassArray, Option<Vec<NameLeaf>>), DatapathError> {
        let (table, like) = (&desired.table, of_reference(&self.realized, before));
        let like = like.and_then(|like| Some((like.reference.slot, &like.made_from.as_ref()?.table)));
        let same4 = like.filter(|(_, like)| like.prefixes4 == table.prefixes4);
        let same6 = like.filter(|(_, like)| like.prefixes6 == table.prefixes6);
        let shared =
            |outer: &Outer, same: Option<(u32, &Table)>| same.and_then(|(slot, _)| outer.get(slot).transpose());
        let prefixes4 =
            (!trie4).then(|| shared(&self.tables4, same4).unwrap_or_else(|| inner::prefixes4(table))).transpose()?;
        let prefixes6 =
            (!trie6).then(|| shared(&self.tables6, same6).unwrap_or_else(|| inner::prefixes6(table))).transpose()?;
        let (classes, array) = self.class_array(&desired.table, before)?;
        pins::unpin(&self.pins.table(slot))?;
        // Together, because each of them is a thread that has to come to its turn.
        let maps = [(&self.tables4, &prefixes4), (&self.tables6, &prefixes6), (&self.classes, &Some(array))];
        let maps = maps.into_iter().filter_map(|(outer, map)| Some((outer, map.as_ref()?)));
        let changes = maps.map(|(outer, map)| outer.begin(slot, map)).collect::<Result<Vec<_>, _>>()?;
        changes.into_iter().try_for_each(Change::see)?;
        let leaves =
            desired.table.has_names().then(|| self.leaves.update(slot, None, &desired.table, names)).transpose()?;
        store(&mut self.infos, slot, &info)?;
        Ok((classes, leaves))
    }

    /// The class array of a table: that of `before` where the classes only go on behind it, which no packet reads yet, or a new one.
    fn class_array(&self, table: &Table, before: Option<TableRef>) -> Result<(ClassArray, MapData), DatapathError> {
        if let Some(before) = of_reference(&self.realized, before)
            && let (Some(known), Some(made_from)) = (&before.classes, &before.made_from)
            && table.classes.begins_with(&made_from.table.classes)
            && table.classes.len() <= known.room
            && known.filled.load(Ordering::Relaxed) == made_from.table.classes.len()
            && let Some(array) = self.classes.get(before.reference.slot)?
        {
            inner::write_classes(&array, made_from.table.classes.len(), &table.classes)?;
            known.filled.store(table.classes.len(), Ordering::Relaxed);
            return Ok((known.clone(), array));
        }
        let length = table.classes.len().max(1);
        let room = if length < SPARE_CLASSES_FROM { length } else { length + length / 8 };
        let blocks = room.div_ceil(inner::BLOCK_LENGTH);
        let array = inner::classes(u32::try_from(blocks).unwrap_or(u32::MAX))?;
        inner::write_classes(&array, 0, &table.classes)?;
        Ok((
            ClassArray { room: blocks * inner::BLOCK_LENGTH, filled: Arc::new(AtomicUsize::new(table.classes.len())) },
            array,
        ))
    }

    /// Frees the tables that no endpoint uses any more, when the last packet that was to be judged by them is through. Returns what they
    /// had counted.
    pub(super) fn retire(&mut self, used: &BTreeSet<SlotGeneration>) -> Result<Vec<Counted>, DatapathError> {
        let unused: Vec<TableKey> = self
            .realized
            .iter()
            .filter(|(_, table)| !used.contains(&(table.reference.slot, table.reference.generation)))
            .map(|(key, _)| *key)
            .collect();
        let unknown: Vec<_> = self.unknown.extract_if(.., |table, _| !used.contains(table)).collect();
        if !unused.is_empty() || !unknown.is_empty() {
            self.grace.wait()?;
        }
        for ((slot, _), info) in unknown {
            self.remove(slot)?;
            self.tries.free(&info);
            self.counters.release(&info);
            self.free.insert(slot);
        }
        let mut retired = Vec::new();
        for key in &unused {
            if let Some(table) = self.realized.remove(key) {
                let slot = table.reference.slot;
                match table.classes.clone().filter(|classes| self.is_used(classes)) {
                    Some(classes) => {
                        self.clear(slot)?;
                        self.ready.insert(slot, classes);
                    }
                    None => self.remove(slot)?,
                }
                self.tries.free(&table.info);
                // No packet reads the table any more, so this is its last word.
                retired.push(self.counted(&table));
                self.counters.release(&table.info);
                self.free.insert(table.reference.slot);
            }
        }
        let stale = self.ready.iter().filter(|(_, ready)| !self.is_used(ready));
        let stale: Vec<u32> = stale.map(|(slot, _)| *slot).collect();
        for slot in stale {
            self.ready.remove(&slot);
            self.remove(slot)?;
        }
        Ok(retired)
    }

    fn is_used(&self, classes: &ClassArray) -> bool {
        self.realized.values().any(|table| table.has(classes))
    }

    /// What the tables in the kernel have counted so far.
    pub(super) fn all_counted(&self) -> Vec<Counted> {
        self.realized.values().map(|table| self.counted(table)).collect()
    }

    fn counted(&self, table: &RealizedTable) -> Counted {
        let shared = table.info.flags & flag::SHARED_COUNTERS != 0;
        let counters = self.counters.read(&table.info);
        Counted { description: Arc::clone(&**table.description), counters, shared }
    }

    /// Takes the maps out of a slot, which no packet looks into any more. Of its constants only the generation stays, so that no later
    /// table has it.
    fn remove(&mut self, slot: u32) -> Result<(), DatapathError> {
        for outer in [&self.tables4, &self.tables6, &self.classes] {
            outer.remove(slot)?;
        }
        self.clear(slot)
    }

    /// The same, but for the maps that the next version of another table has too.
    fn clear(&mut self, slot: u32) -> Result<(), DatapathError> {
        self.leaves.remove(slot)?;
        let info = TableInfo { generation: self.info(slot)?.generation, ..TableInfo::default() };
        store(&mut self.infos, slot, &info)?;
        pins::unpin(&self.pins.table(slot))
    }
}

fn store(infos: &mut TableInfos, slot: u32, info: &TableInfo) -> Result<(), DatapathError> {
    let bytes: [u8; size_of::<TableInfo>()] = zerocopy::transmute!(*info);
    infos.set(slot, bytes, 0).map_err(DatapathError::map(map::TABLE_INFO))
}

fn of_reference(realized: &BTreeMap<TableKey, RealizedTable>, reference: Option<TableRef>) -> Option<&RealizedTable> {
    realized.values().find(|table| Some(table.reference) == reference)
}

/// Slot and generation, ordered.
pub(super) type SlotGeneration = (u32, u32);
