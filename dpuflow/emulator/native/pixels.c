/* Pixels as the network's input, by tables. */
#include "epilogue.h"

/* `count` pixels of so many channels: channel c goes to `places[c]` through its own 256 bytes of `tables`. */
void translate(const uint8_t *from, uint8_t *to, int64_t count, int64_t channels, const uint8_t *tables, const int64_t *places)
{
    if (channels == 1) {
        /* vectors are read whole, but nothing lies behind the caller's array */
        const int64_t whole = count / BYTES * BYTES;
        through_table(tables, from, to, whole);
        for (int64_t i = whole; i < count; i++) to[i] = tables[from[i]];
        return;
    }
    for (int64_t i = 0; i < count; i++, from += channels, to += channels)
        for (int64_t c = 0; c < channels; c++) to[places[c]] = tables[256 * c + from[c]];
}
