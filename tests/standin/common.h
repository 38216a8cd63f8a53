// All that the text of a kernel may use. It is compiled before the texts: see compiler.py.
#include "prelude.h"

#include "grid.h"
