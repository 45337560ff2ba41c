//! Counts of a served store.
//!
//! Invariant: one list of fields, sent in its order. Left out: what they are taken from.

use super::Malformed;
use super::cursor::{Reader, Writer};

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counts of a served store at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ServedStats {
            $($(#[$doc])* pub $field: u64,)*
            /// What pages the memory lies on, and why.
            pub pages: String,
            /// Where objects are moved when memory is full, or why nowhere.
            pub disk: String,
        }

        impl ServedStats {
            pub(super) fn encode(&self, w: &mut Writer<'_>) {
                $(w.u64(self.$field);)*
                w.bytes(shortened(&self.pages)).bytes(shortened(&self.disk));
            }

            pub(super) fn decode(r: &mut Reader<'_>) -> Result<ServedStats, Malformed> {
                Ok(ServedStats {
                    $($field: r.u64()?,)*
                    pages: r.text()?.to_owned(),
                    disk: r.text()?.to_owned(),
                })
            }

            #[cfg(any(test, fuzzing))]
            pub(super) fn of(mut number: impl FnMut() -> u64, pages: String) -> ServedStats {
                ServedStats { $($field: number(),)* disk: pages.clone(), pages }
            }
        }
    };
}

/// As much of a text as fits a frame beside another.
fn shortened(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(16 << 10)]
}

stats! {
    /// Bytes that the store may hold.
    capacity,
    /// Bytes of live objects, as they were asked for, those being written included.
    used,
    /// Bytes in pages handed out: more than `used` by rounding.
    reserved,
    /// Complete objects that have a name.
    objects,
    /// Objects being written.
    drafts,
    /// Objects that somebody reads.
    pinned,
    /// Deleted objects that somebody still reads.
    deleted,
    /// Connected clients.
    clients,
    /// Gets that wait for a seal.
    waiting,
    /// Clients that are told of seals and deletions.
    subscribers,
    /// Objects sealed since the server started.
    sealed,
    /// Objects that were evicted since the server started.
    evicted,
    /// Bytes of objects that are on disk now; they are not among `used`.
    on_disk,
    /// How many those are; they are among `objects`.
    objects_on_disk,
    /// Bytes moved to disk since the server started.
    moved_to_disk,
    /// Bytes brought back from disk since the server started.
    restored,
}
