//! The paths that an episode opens, numbered, so that threads can tell them without allocating.

use knobrig_proto::Step;

/// A path's number within its [`Paths`].
pub type PathId = u32;

/// The paths of an episode's opens.
#[derive(Debug)]
pub struct Paths(Vec<String>);

impl Paths {
    /// The paths that the steps open.
    pub fn of<'a>(steps: impl Iterator<Item = &'a Step>) -> Self {
        let mut paths: Vec<&str> = steps
            .filter_map(|step| match step {
                Step::Open { path, .. } => Some(path.as_str()),
                _ => None,
            })
            .collect();
        paths.sort_unstable();
        paths.dedup();
        Self(paths.into_iter().map(str::to_owned).collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is opened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A path's number.
    pub fn id(&self, path: &str) -> Option<PathId> {
        let at = self.0.binary_search_by(|it| it.as_str().cmp(path)).ok()?;
        PathId::try_from(at).ok()
    }

    /// A number's path.
    pub fn name(&self, id: PathId) -> &str {
        self.0.get(id as usize).map_or("", String::as_str)
    }
}
