//! Hash maps read many entries at a time.

use std::os::fd::AsRawFd;

use libbpf_rs::MapCore;

use super::shared::Wire;

/// What a reading of a table found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Keys and values from the beginning of the vectors.
    pub entries: usize,
    /// All there was; else the kernel refused to go on.
    pub whole: bool,
}

/// Reads a hash map with keys of this size and type, as far as the vectors have room, with a system call for many entries.
pub(super) fn read<K: Wire, V: Wire>(map: &impl MapCore, keys: &mut [K], values: &mut [V]) -> Found {
    let sizes = (map.key_size() as usize, map.value_size() as usize);
    assert_eq!(sizes, (size_of::<K>(), size_of::<V>()), "the map's types");
    let room = keys.len().min(values.len());
    let (mut found, mut position) = (0, 0u32); // where the kernel goes on, four bytes for a hash map
    while found < room {
        let mut count = (room - found) as u32;
        let first = found == 0;
        // SAFETY: keys and values have room for `count` more entries of the map's sizes, and every bit pattern is a value of
        // theirs; `position` is the kernel's own cursor.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                if first { std::ptr::null_mut() } else { (&raw mut position).cast() },
                (&raw mut position).cast(),
                keys[found..].as_mut_ptr().cast(),
                values[found..].as_mut_ptr().cast(),
                &raw mut count,
                std::ptr::null(),
            )
        };
        found += count as usize;
        if result != 0 || count == 0 {
            return Found { entries: found, whole: result == 0 || result == -libc::ENOENT };
        }
    }
    Found { entries: found, whole: true }
}
