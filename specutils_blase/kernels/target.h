/* All kernels, for the kind of processor that the file which includes this has chosen.  All are static: only the
   table TARGET leaves the file. */
#include "voigt.h"

#include "lines.h"

#include "banded.h"

#include "assembly.h"
#include "equivalent_widths.h"
#include "line_network.h"
#include "multilevel.h"
#include "observed.h"

#define ENTRY(name, kinds) name,
const Target TARGET = {TARGET_NAME, {KERNELS(ENTRY)}};
