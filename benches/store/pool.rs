//! Reserved pages for the time of a row, as far as the machine lets them be reserved.

use std::fs;

const POOL: &str = "/proc/sys/vm/nr_hugepages";
const HUGE: u64 = 2 << 20;

/// Pages added to the kernel's pool; taken off it again at the end. Relative, since others may change the pool.
pub struct Reserved(u64);

fn total() -> Option<u64> {
    fs::read_to_string(POOL).ok()?.trim().parse().ok()
}

impl Reserved {
    /// Room for so many bytes, or why not.
    pub fn bytes(bytes: u64) -> Result<Reserved, String> {
        let pages = bytes.div_ceil(HUGE);
        let before = total().ok_or("the kernel has no pool of 2 MiB pages")?;
        fs::write(POOL, (before + pages).to_string())
            .map_err(|e| format!("{pages} pages of 2 MiB cannot be reserved: {POOL}: {e}"))?;
        let added = total().unwrap_or(before).saturating_sub(before);
        let reserved = Reserved(added);
        if added < pages {
            return Err(format!(
                "of {pages} pages of 2 MiB the kernel found only {added}"
            ));
        }
        Ok(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let left = total().unwrap_or(0).saturating_sub(self.0);
        let _ = fs::write(POOL, left.to_string());
    }
}
