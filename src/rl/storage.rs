//! The numbers of candle's tensors, where they lie.
//!
//! Invariant: nothing is copied but what is not in one piece. Left out: devices other than the CPU.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

/// The numbers of a contiguous tensor of `f32` on the CPU.
pub(super) fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        (_, None) => bail!("the operation needs a contiguous tensor"),
        (other, _) => bail!("the operation needs f32, not {:?}", other.dtype_of()),
    }
}

/// The type of a storage's numbers.
trait DTypeOf {
    fn dtype_of(&self) -> DType;
}

impl DTypeOf for CpuStorage {
    fn dtype_of(&self) -> DType {
        use candle_core::backend::BackendStorage;
        self.dtype()
    }
}

/// Reads the numbers of a tensor where they lie.
pub(super) fn read<R>(tensor: &Tensor, with: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(with(numbers(storage, layout)?)),
        _ => bail!("the operation runs on the CPU alone"),
    }
}
