//! What a module's file says of its functions: those that it calls of others, and its own.

use std::path::Path;

use object::{Object, ObjectSymbol, SymbolKind};

use super::image::{parse, read};
use crate::error::Error;

/// What a compiler calls at the start of each function that ftrace can hook.
const TRACED: &str = "__fentry__";
/// Calls of a sanitizer are no part of the module's own doing.
const SANITIZER: &str = "__asan_";

/// The functions that a module calls of the kernel and of other modules, and its own, as
/// `module:function`, where they can be hooked.
///
/// # Errors
/// The file can't be read, or is no module.
pub fn hooks(name: &str, path: &Path) -> Result<Vec<String>, Error> {
    let no_module = |why| {
        Error::Usage(format!(
            "{why}; give the kernel module (.ko) that the build made"
        ))
    };
    let bytes = read(path).map_err(no_module)?;
    let file = parse(path, &bytes).map_err(no_module)?;
    let symbols: Vec<_> = file
        .symbols()
        .filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), symbol)))
        .collect();
    let traced = symbols.iter().any(|(name, _)| name == TRACED);
    let mut functions: Vec<_> = symbols
        .into_iter()
        .filter(|(symbol, _)| symbol != TRACED && !symbol.starts_with(SANITIZER))
        .filter_map(|(symbol, at)| {
            if at.is_undefined() && !symbol.is_empty() {
                Some(symbol)
            } else if traced && at.kind() == SymbolKind::Text {
                Some(format!("{name}:{symbol}"))
            } else {
                None
            }
        })
        .collect();
    functions.sort();
    functions.dedup();
    Ok(functions)
}
