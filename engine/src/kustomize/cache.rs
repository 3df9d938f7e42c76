//! Sharing what kustomizations give: a base of a hundred overlays is rendered once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::accumulator::Accumulator;
use super::error::RenderError;
use super::fields::Located;
use super::reads::ReadSet;
use super::render::{Renderer, join_origin};
use super::resource_map::measure;
use super::tree::Tree;
use crate::object::Confidential;
use crate::sops::KeyRing;

/// How many bytes of objects a [`Cache`] of the usual size keeps.
pub const DEFAULT_CACHE_BYTES: usize = 128 * 1024 * 1024;
/// How many states of one folder are kept: a mirror serves several branches.
const MAX_STATES: usize = 4;
/// What an object takes beside its content, in bytes.
const OBJECT_BYTES: usize = 512;

/// What the kustomizations that others include gave, for renders of the same tree and of later ones.
///
/// An entry is used only where everything that it was made from is unchanged in the tree that is rendered:
/// where folders have ids, that is a few comparisons. May be shared between threads. Results are those of
/// [`render`](super::render) without a cache.
///
/// ```
/// use engine::kustomize::{Cache, MapTree, render_with};
/// let cache = Cache::new();
/// let tree = MapTree::new()
///     .with("base/kustomization.yaml", "resources: [config.yaml]\n")
///     .with("base/config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
///     .with("a/kustomization.yaml", "resources: [../base]\nnamePrefix: a-\n")
///     .with("b/kustomization.yaml", "resources: [../base]\nnamePrefix: b-\n");
/// assert_eq!(render_with(&cache, &tree, "a")?.objects[0].name(), "a-a");
/// assert_eq!(render_with(&cache, &tree, "b")?.objects[0].name(), "b-a");
/// assert_eq!(cache.statistics().hits, 1);
/// # Ok::<(), engine::kustomize::RenderError>(())
/// ```
#[derive(Debug)]
pub struct Cache {
    states: Mutex<States>,
    max_bytes: usize,
    clock: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What a [`Cache`] did and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatistics {
    /// Kustomizations that did not have to be rendered.
    pub hits: u64,
    /// Kustomizations that were rendered.
    pub misses: u64,
    /// Results held.
    pub entries: usize,
    /// About how many bytes they take.
    pub bytes: usize,
}

#[derive(Debug, Default)]
struct States {
    /// By folder, newest first.
    by_directory: HashMap<String, Vec<Arc<State>>>,
    bytes: usize,
}

/// What a result counts for in the limits of the render that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// How much was read, in bytes.
    pub bytes_read: usize,
    /// How many kustomizations it went through.
    pub visited: usize,
    /// How many of them were inside of each other.
    pub depth: usize,
    /// How often it needed the built-in schemas.
    pub builtin_uses: usize,
}

/// What a folder's kustomization gave.
#[derive(Debug)]
pub(super) struct State {
    /// Everything that it was made from.
    pub reads: Arc<ReadSet>,
    pub accumulated: Accumulator,
    pub counts: Counts,
    /// What must not be repeated in messages about it.
    pub confidential: Confidential,
    size: usize,
    used: AtomicU64,
}

impl State {
    /// A result; none where it is not to be kept.
    pub fn new(
        reads: Arc<ReadSet>,
        accumulated: &Accumulator,
        counts: Counts,
        confidential: Confidential,
    ) -> Option<Self> {
        let mut accumulated = accumulated.clone();
        accumulated.resources.forget_index();
        let mut size = reads.size();
        for resource in accumulated.resources.iter() {
            size += measure(resource.value()).ok()? + OBJECT_BYTES;
        }
        Some(Self { reads, accumulated, counts, confidential, size, used: AtomicU64::new(0) })
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl Cache {
    /// A cache of [`DEFAULT_CACHE_BYTES`].
    pub fn new() -> Self {
        Self::with_limit(DEFAULT_CACHE_BYTES)
    }

    /// A cache that keeps about so many bytes; what was not used for longest goes first.
    pub fn with_limit(max_bytes: usize) -> Self {
        Self {
            states: Mutex::default(),
            max_bytes,
            clock: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What the cache did since it was made, and what it holds now.
    pub fn statistics(&self) -> CacheStatistics {
        let states = self.lock();
        CacheStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: states.by_directory.values().map(Vec::len).sum(),
            bytes: states.bytes,
        }
    }

    /// The result for a folder of a tree, if one was made from the same.
    pub(super) fn get(
        &self,
        tree: &dyn Tree,
        directory: &str,
        keys: Option<&dyn KeyRing>,
    ) -> Option<Arc<State>> {
        // The tree is asked without the lock: it may have to read a disk.
        let known = self.lock().by_directory.get(directory).cloned().unwrap_or_default();
        let found = known.into_iter().find(|state| state.reads.unchanged_with(tree, keys));
        match &found {
            Some(state) => {
                state.used.store(self.tick(), Ordering::Relaxed);
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.misses.fetch_add(1, Ordering::Relaxed);
            }
        }
        found
    }

    /// Keeps a result.
    pub(super) fn put(&self, directory: &str, state: State) {
        if state.size > self.max_bytes {
            return;
        }
        state.used.store(self.tick(), Ordering::Relaxed);
        let mut states = self.lock();
        states.bytes += state.size;
        let of_directory = states.by_directory.entry(directory.to_owned()).or_default();
        of_directory.insert(0, Arc::new(state));
        let gone: usize = of_directory.drain(MAX_STATES.min(of_directory.len())..).map(|old| old.size).sum();
        states.bytes -= gone;
        if states.bytes > self.max_bytes {
            states.shrink(self.max_bytes / 4 * 3);
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        // Nothing is half done under the lock but the count of bytes.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    /// Drops what was not used for longest, down to a size.
    fn shrink(&mut self, bytes: usize) {
        let mut all: Vec<(u64, usize)> = self
            .by_directory
            .values()
            .flatten()
            .map(|state| (state.used.load(Ordering::Relaxed), state.size))
            .collect();
        all.sort_unstable();
        let mut kept = self.bytes;
        let newest_gone = all.iter().find_map(|(used, size)| {
            kept = kept.saturating_sub(*size);
            (kept <= bytes).then_some(*used)
        });
        self.by_directory.retain(|_, states| {
            states.retain(|state| newest_gone.is_some_and(|gone| state.used.load(Ordering::Relaxed) > gone));
            !states.is_empty()
        });
        self.bytes = self.by_directory.values().flatten().map(|state| state.size).sum();
    }
}

impl Renderer<'_> {
    /// What the kustomization of a folder gives, from the cache if it holds that.
    pub(super) fn included(
        &mut self,
        directory: &str,
        origin: &str,
        entry: &Located,
    ) -> Result<Accumulator, RenderError> {
        let inner_origin = join_origin(origin, &entry.text);
        // Where objects note their way through the tree, or a schema is set, the place matters too.
        let Some(cache) = self.cache.filter(|_| !self.tracks_origin && !self.schema_is_set) else {
            let (inner, nested) = self.nested(directory, entry, false)?;
            return self.accumulate(&inner, &inner_origin, &nested, self.nothing_yet());
        };
        let (inner, _) = self.locate(directory, entry)?;
        if let Some(state) = cache.get(self.reader.tree(), &inner, self.keys) {
            self.confidential.borrow_mut().extend(&state.confidential);
            self.reader.include(&state.reads, state.counts.bytes_read, &inner)?;
            self.check_limits(state.counts.visited, state.counts.depth, &entry.source)?;
            self.visited += state.counts.visited;
            self.deepest = self.deepest.max(self.stack.len() + state.counts.depth);
            self.builtin_uses += state.counts.builtin_uses;
            return Ok(state.accumulated.clone());
        }
        let before = (self.reader.bytes_read(), self.visited, self.stack.len(), self.builtin_uses);
        let deepest = std::mem::replace(&mut self.deepest, self.stack.len());
        let confidential = self.confidential.take();
        self.reader.begin_part();
        let (inner, nested) = self.nested(directory, entry, false)?;
        let child = self.accumulate(&inner, &inner_origin, &nested, self.nothing_yet())?;
        let reads = self.reader.end_part();
        let own = self.confidential.replace(confidential);
        self.confidential.borrow_mut().extend(&own);
        if !self.schema_is_set {
            let counts = Counts {
                bytes_read: self.reader.bytes_read() - before.0,
                visited: self.visited - before.1,
                depth: self.deepest - before.2,
                builtin_uses: self.builtin_uses - before.3,
            };
            if let Some(state) = State::new(reads, &child, counts, own) {
                cache.put(&inner, state);
            }
        }
        self.deepest = self.deepest.max(deepest);
        Ok(child)
    }
}
