//! Pages of `docs/reference` that are written from the code: tests compare them with it.

use std::path::Path;

/// Compares a page with what the code says, or writes it where `REGENERATE` is set.
pub(crate) fn check(path: &str, wanted: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap_or(&file)).unwrap_or_default();
        std::fs::write(&file, wanted).unwrap_or_default();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == wanted,
        "{path} differs from the code; regenerate it with\n    \
         REGENERATE=1 cargo test --lib the_reference_of"
    );
}
