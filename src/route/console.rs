//! The files of the console. They hold no data and need no credential: what the page shows, it asks
//! for with its caller's.

use super::{Access, Route, table};

/// Declares the files, with their names below `/admin/console`.
macro_rules! console_files {
    ($( $variant:ident = $path:literal, )+) => {
        /// A file of the console.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is named as its file")]
        pub enum ConsoleFile {
            $( $variant, )+
        }

        impl ConsoleFile {
            /// Every file.
            pub const ALL: &[Self] = &[$( Self::$variant, )+];

            /// Where it is served.
            pub const fn path(self) -> &'static str {
                match self {
                    $( Self::$variant => $path, )+
                }
            }
        }

        pub(super) const CONSOLE_ROUTES: &[Route] = &[
            $( table::console($path, Access::Anyone(ConsoleFile::$variant)), )+
        ];
    };
}

console_files! {
    Page = "/admin/console",
    Style = "/admin/console/console.css",
    Main = "/admin/console/main.js",
    Session = "/admin/console/session.js",
    Place = "/admin/console/place.js",
    Dom = "/admin/console/dom.js",
    Table = "/admin/console/table.js",
    Overview = "/admin/console/overview.js",
    Organisations = "/admin/console/organisations.js",
    Rules = "/admin/console/rules.js",
    Devices = "/admin/console/devices.js",
    Channels = "/admin/console/channels.js",
    System = "/admin/console/system.js",
    Settings = "/admin/console/settings.json",
    Senders = "/admin/console/senders.json",
}
