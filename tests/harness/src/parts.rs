//! Where the real parts are. `scripts/parts` puts them there.

use std::path::PathBuf;

/// The path of a part that `scripts/parts` built, or the name of one that Debian brings.
///
/// # Panics
/// If the part is not there: a test that cannot run must say so.
pub fn part(name: &str) -> PathBuf {
    let built = directory().join(name);
    if built.exists() {
        return built;
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&on_path).map(|dir| dir.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("the part '{name}' is not there; run scripts/parts {name}"))
}

fn directory() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    var("MTP_PARTS").unwrap_or_else(|| {
        let cache = var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
        cache.expect("HOME is set").join("mimir-tenant-proxy/parts")
    })
}
