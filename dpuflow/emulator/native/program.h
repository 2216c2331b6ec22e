/* A network as a list of steps on maps in one arena; filled in by c_kernels.py, whose structures mirror these.
 *
 * Every value is kept as an unsigned byte, value + 128, so that a dot product's unsigned side can read it;
 * 128 is zero. Maps are NHWC. A map's border (`left`, ...) holds zeros, for the padding of who reads it.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdint.h>

#define ZERO_POINT 0x80

typedef struct {
    int64_t at;                /* distance of pixel (0, 0) of the first image from the arena's start */
    int64_t image, row, pixel; /* bytes from one to the next */
    int64_t h, w, c;
    int64_t left, right, top, bottom; /* pixels of border around */
} Map;

typedef struct {
    int64_t kind;
    int64_t count;         /* of inputs */
    const int64_t *inputs; /* numbers of maps */
    int64_t output;        /* number of a map */
    int64_t external;      /* load, store: number of the caller's array */
    int64_t constant;      /* load: one image for all */
    int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    const int64_t *taps; /* convolution: distance of each tap's bytes from the window's first */
    int64_t tap_count, quads; /* and how many times four bytes each has */
    const int8_t *weights;
    const int32_t *offset;  /* what the sums start with, per output channel */
    const int32_t *bias;    /* leaky: added behind the sums, whose fraction has `fraction` bits */
    const int64_t *shifts;  /* per input: left by so much (right, if negative) */
    const int64_t *rows, *columns; /* pick: the input's row and column of each of the output's */
    const int64_t *upper_rows, *upper_columns; /* blend: the other neighbour, and its share */
    const int64_t *factors; /* average_pool: multiplier, shift by rows and columns of a window in the map; or 0 */
    const float *row_shares, *column_shares;
    const uint8_t *table;   /* 256 bytes, the last thing that is done to each value; or 0 */
    int64_t leaky, fraction, shift, low, high, multiplier;
    int64_t paired; /* depthwise: the last block of channels is there twice, for two rows at once */
    int64_t at_once; /* whether it is done for all images of a block at once, or for one after the other */
    int64_t parts; /* into which the step is cut for workers on one image */
    int64_t run; /* convolution: pixels of one row that are computed together, 1 to 7 */
} Step;

typedef struct {
    const Map *maps;
    const Step *steps;
    int64_t count;
    uint8_t *arena; /* of one worker */
    int64_t n;      /* images in the arena */
    int64_t first;  /* which of the caller's images the arena's first one is */
    const int8_t *const *sources;
    int8_t *const *targets;
} Frame;

typedef struct {
    int64_t first, end;
} Rows;

/* The part `part` of `parts` of one step's work. Hidden, so that no other library's `add` takes the place of this. */
#pragma GCC visibility push(hidden)
void convolve(const Frame *f, const Step *s, int64_t part, int64_t parts);
void depthwise(const Frame *f, const Step *s, int64_t part, int64_t parts);
void max_pool(const Frame *f, const Step *s, int64_t part, int64_t parts);
void average_pool(const Frame *f, const Step *s, int64_t part, int64_t parts);
void add(const Frame *f, const Step *s, int64_t part, int64_t parts);
void multiply(const Frame *f, const Step *s, int64_t part, int64_t parts);
void copy(const Frame *f, const Step *s, int64_t part, int64_t parts);
void pick(const Frame *f, const Step *s, int64_t part, int64_t parts);
void blend(const Frame *f, const Step *s, int64_t part, int64_t parts);
void shuffle(const Frame *f, const Step *s, int64_t part, int64_t parts);
void spread(const Frame *f, const Step *s, int64_t part, int64_t parts);
void load(const Frame *f, const Step *s, int64_t part, int64_t parts);
void store(const Frame *f, const Step *s, int64_t part, int64_t parts);
/* Rows of the output that a part of a convolution writes; values that a later part writes again are the same. */
Rows convolved_rows(const Frame *f, const Step *s, int64_t part, int64_t parts);
#pragma GCC visibility pop

#define FIRST(total, part, parts) ((total) * (part) / (parts))

#endif
