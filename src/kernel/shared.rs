//! BPF array maps mapped into this process: reading them takes no system call.

use std::cell::OnceCell;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use libbpf_rs::MapCore;
use memmap2::{MmapOptions, MmapRaw};

/// A type whose every bit pattern is a value, so that memory the kernel writes can be read as it.
///
/// # Safety
/// `#[repr(C)]`, made of integers alone, the first of them a `u64`.
pub unsafe trait Wire: Copy {}

// SAFETY: what is asked for.
unsafe impl Wire for u64 {}

/// A BPF array map (`BPF_F_MMAPABLE`), mapped: part by part, when an entry of it is first asked for. All of a
/// mapping counts as resident, of an array that is mostly unused as well.
pub struct SharedArray<T> {
    map: OwnedFd,
    parts: Box<[OnceCell<MmapRaw>]>,
    /// Entries in a part: a power of two, so many that parts begin at pages.
    part_len: usize,
    len: usize,
    value: PhantomData<T>,
}

/// A map could not be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("map {map}: values of {kernel} bytes where {expected} were expected")]
    Layout { map: String, kernel: u32, expected: usize },
    #[error("map {map} cannot be mapped into memory: {source}")]
    Map { map: String, source: std::io::Error },
}

impl<T: Wire> SharedArray<T> {
    /// Shares all entries of `map`.
    pub fn new(map: &impl MapCore) -> Result<Self, ShareError> {
        let name = || map.name().to_string_lossy().into_owned();
        if map.value_size() as usize != size_of::<T>() {
            return Err(ShareError::Layout {
                map: name(),
                kernel: map.value_size(),
                expected: size_of::<T>(),
            });
        }
        let len = map.max_entries() as usize;
        // The kernel's values are multiples of eight bytes.
        let part_len = rustix::param::page_size() / 8;
        let array = SharedArray {
            map: map
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| ShareError::Map { map: name(), source })?,
            parts: (0..len.div_ceil(part_len)).map(|_| OnceCell::new()).collect(),
            part_len,
            len,
            value: PhantomData,
        };
        // What cannot be mapped at all is told here.
        if let Some(first) = array.parts.first() {
            let part = array.mapped(0).map_err(|source| ShareError::Map { map: name(), source })?;
            let _ = first.set(part);
        }
        Ok(array)
    }

    fn mapped(&self, part: usize) -> std::io::Result<MmapRaw> {
        let begin = part * self.part_len;
        let entries = self.part_len.min(self.len - begin);
        MmapOptions::new()
            .offset((begin * size_of::<T>()) as u64)
            .len(entries * size_of::<T>())
            .map_raw(&self.map)
    }

    /// Where entry `i` is, valid as long as `self`. BPF programs write there meanwhile: it is for volatile or atomic access
    /// alone.
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len), or this process may have no more mappings.
    pub fn at(&self, i: usize) -> *mut T {
        assert!(i < self.len);
        let part = self.parts[i / self.part_len].get_or_init(|| {
            self.mapped(i / self.part_len).expect("room for another part of a BPF map (vm.max_map_count)")
        });
        // SAFETY: within the part.
        unsafe { part.as_mut_ptr().cast::<T>().add(i % self.part_len) }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A copy of entry `i`. Each word of it is whole; words may be of different moments.
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len).
    pub fn get(&self, i: usize) -> T {
        // SAFETY: within a mapping; T is plain integers, aligned as the kernel aligns array
        // values (8 bytes); volatile because BPF programs write meanwhile.
        unsafe { self.at(i).read_volatile() }
    }

    /// The first word of entry `i`: tells whether it is in use without copying the rest.
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len).
    pub fn first_word(&self, i: usize) -> u64 {
        // SAFETY: as in `get`; a Wire type begins with a u64.
        unsafe { self.at(i).cast::<u64>().read_volatile() }
    }
}

/// The event in a ring buffer's bytes; `None` if they are too few.
pub fn decode<T: Wire>(bytes: &[u8]) -> Option<T> {
    // SAFETY: as many bytes as T has, and every bit pattern of a Wire type is a value.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The text before the first NUL, or all of it.
pub fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use libbpf_rs::{MapFlags, MapHandle, MapType};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Three([u64; 3]);
    // SAFETY: u64 alone.
    unsafe impl Wire for Three {}

    #[test]
    fn entries_are_found_in_their_part() {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: libbpf_sys::BPF_F_MMAPABLE,
            ..Default::default()
        };
        let map = MapHandle::create(MapType::Array, Some("kg_test"), 4, 24, 2000, &options)
            .expect("a map (as root)");
        let array = SharedArray::<Three>::new(&map).expect("shared");
        let all = [0u32, 1, 511, 512, 513, 1024, 1999];
        for i in all {
            let value: Vec<u8> = [1, u64::from(i), 3].iter().flat_map(|v: &u64| v.to_ne_bytes()).collect();
            map.update(&i.to_ne_bytes(), &value, MapFlags::ANY).expect("written");
        }
        for i in all {
            assert_eq!(array.get(i as usize), Three([1, u64::from(i), 3]));
            assert_eq!(array.first_word(i as usize), 1);
        }
        assert_eq!(array.get(600), Three([0; 3]));
        let mapped = array.parts.iter().filter(|p| p.get().is_some()).count();
        assert_eq!((mapped, array.parts.len()), (4, 4));
    }
}
