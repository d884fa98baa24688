//! BPF array maps mapped into this process: reading them takes no system call.

use std::marker::PhantomData;

use libbpf_rs::MapCore;
use memmap2::MmapRaw;

/// A type whose every bit pattern is a value, so that memory the kernel writes can be read as it.
///
/// # Safety
/// `#[repr(C)]`, made of integers alone, the first of them a `u64`.
pub unsafe trait Wire: Copy {}

/// A BPF array map (`BPF_F_MMAPABLE`), mapped read-only.
pub struct SharedArray<T> {
    memory: MmapRaw,
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
    /// Maps all entries of `map`.
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
        let memory = memmap2::MmapOptions::new()
            .len(len * size_of::<T>())
            .map_raw_read_only(&map.as_fd())
            .map_err(|source| ShareError::Map { map: name(), source })?;
        Ok(SharedArray { memory, len, value: PhantomData })
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
        assert!(i < self.len);
        // SAFETY: within the mapping; T is plain integers, aligned as the kernel aligns array
        // values (8 bytes); volatile because BPF programs write meanwhile.
        unsafe { self.memory.as_ptr().cast::<T>().add(i).read_volatile() }
    }

    /// The first word of entry `i`: tells whether it is in use without copying the rest.
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len).
    pub fn first_word(&self, i: usize) -> u64 {
        assert!(i < self.len);
        // SAFETY: as in `get`; a Wire type begins with a u64.
        unsafe { self.memory.as_ptr().cast::<T>().add(i).cast::<u64>().read_volatile() }
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
