//! Where a target goes, once its receiver has looked: there, or into there by its own name.

use deltasync_proto::{Destination, EntryKind, FaultKind, Place, StorageFault};

use crate::fault::fault;

/// The place of the target, given what the destination is now; `None` means that nothing is there.
///
/// # Errors
///
/// [`FaultKind::WrongKind`] when a directory was wished for and something else is there.
pub(crate) fn resolve(destination: Destination, is: Option<EntryKind>) -> Result<Place, StorageFault> {
    let Destination { place, name, directory } = destination;
    match is {
        Some(EntryKind::Directory) => {}
        None if directory => {}
        Some(_) if directory => return Err(fault(FaultKind::WrongKind, &place.path, "not a directory")),
        Some(_) | None => return Ok(place),
    }
    let path = place.path.join(&name).map_err(|error| fault(FaultKind::Other, &place.path, error))?;
    Ok(Place { path, ..place })
}
