#pragma once

namespace fmoe::comm {

// Before MPI ends, as reducers hold groups.
void remove_reducers();

}  // namespace fmoe::comm
