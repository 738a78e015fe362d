/* The forward pass of minigen/model.py for a few new tokens of each text, as fast as memory is read.

   minigen/inference/cpu.py compiles this file and calls `step`, or `product` alone. It passes the addresses
   of PyTorch's tensors, so no weight is copied.

   Shapes: B texts, T new tokens of each, N = B T vectors; C width of the residual stream, D width of a
   head, H query heads, Hk key-value heads, M width of the MLP, V vocabulary. The cache of a layer is
   (B, 2 Hk, capacity, D): keys, then values.

   One token multiplies each weight once, and memory delivers weights more slowly than a core can
   multiply them. So memory sets the speed, and the code serves two aims: read each weight once, in few
   bytes, and never let a core wait for anything else.

   All threads run through all of `step`. Each computes its share of the rows of a matrix; a barrier
   waits until the other threads have computed theirs. Cheap work, such as a norm, each thread repeats
   for itself, because a barrier would cost more.

   Floating-point addition rounds, so a sum has other last bits if its terms are added in another
   order. In this file the order depends neither on the number of texts nor on the number of threads: a text
   gets the same bits alone and in a batch (test_the_bits_of_a_row_do_not_depend_on_the_batch,
   test_the_bits_do_not_depend_on_the_number_of_threads). */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum kind { FLOAT32, BFLOAT16, INT8 };
static const int BYTES[] = {4, 2, 1};
enum { MAX_BATCH = 4 }; /* vectors that are multiplied with each weight that is loaded */

struct matrix { /* y = W x + bias, W (rows, columns) = (out, in) */
    const void *weight;
    const float *scale; /* (rows,) for INT8: what one step of a row's integers is worth; else NULL */
    const float *bias;  /* (rows,), or NULL */
    int kind, rows, columns;
};

struct norm {
    const float *gain, *shift; /* gain NULL: no norm; shift may be NULL */
    int centred;               /* 1: LayerNorm, which subtracts the mean; 0: RMSNorm */
};

struct layer {
    struct norm attention_norm, query_norm, key_norm, mlp_norm;
    struct matrix query, key, value, output, up, gate, down; /* gate NULL: GELU, else SwiGLU */
};

struct model {
    struct matrix embedding, position, lm_head; /* position NULL: positions are rotary */
    struct norm norm;
    const struct layer *layers;
    const float *cosine, *sine; /* (block_size, D / 2), or NULL: positions are not rotary */
    float eps;
    int n_layer, n_head, n_kv_head, head_dim, cache_kind;
};

static inline float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint16_t to_bfloat16(float value) { /* rounds to the nearest, ties to even */
    uint32_t bits = to_bits(value);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- Dot products of a row of weights and a vector, which is packed for the weights first. ---- */

/* Pack x (n,) for dot products with weights of this kind. Return the factor to scale each product by.

   FLOAT32: copy x. BFLOAT16: put the numbers at even places first, then those at odd places, because
   one 32-bit word holds two weights. INT8: round x to integers, so that the sum of products is exact;
   their range is the largest with which no sum of n products overflows 32 bits. */
static float pack(enum kind kind, const float *restrict x, int n, float *restrict packed) {
    if (kind == FLOAT32) {
        memcpy(packed, x, n * sizeof *x);
    } else if (kind == BFLOAT16) {
        for (int i = 0; i < n / 2; i++) {
            packed[i] = x[2 * i];
            packed[n / 2 + i] = x[2 * i + 1];
        }
    } else {
        int16_t *integers = (int16_t *)packed;
        int largest = INT32_MAX / (127 * n) < INT16_MAX ? INT32_MAX / (127 * n) : INT16_MAX;
        /* Find the largest |x| by comparing the bits as integers: there a NaN is above all numbers and
           so is never lost. Start above zero, because x is divided by the result. */
        uint32_t bits = to_bits(1e-30f);
        for (int i = 0; i < n; i++) {
            uint32_t other = to_bits(x[i]) & 0x7fffffff;
            bits = bits > other ? bits : other;
        }
        float step = from_bits(bits) / (float)largest;
        for (int i = 0; i < n; i++) integers[i] = (int16_t)rintf(x[i] / step);
        return step;
    }
    return 1;
}

/* A vector fills one register of the processor. gcc keeps a longer one in memory, so each step of a loop
   reads and writes the sums: on AVX2, float32 then takes twice as long, and bfloat16 three times
   (docs/notebook.md). clang splits a longer one among several registers. */
#if defined __AVX512F__ || (defined __clang__ && !defined __AVX2__)
enum { LANES = 16 };
#elif defined __AVX2__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float floats __attribute__((vector_size(4 * LANES))), four __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

static inline floats load(const void *from) {
    floats lanes;
    memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

static inline floats load_some(const void *from, int n) { /* n numbers, then zeros */
    floats lanes = {0};
    memcpy(&lanes, from, (n < LANES ? n : LANES) * sizeof(float));
    return lanes;
}

/* Return a b + c. Where the processor rounds that once, it is written so: of a b + c d, a compiler may
   round either product by itself, and does so in one of two loops (gcc 16), so that a text alone and the
   same text in a batch got other bits. `omp simd` asks for one instruction for all lanes: without it, gcc
   takes the sums of each row apart, lane by lane, and bfloat16 is a tenth slower (docs/notebook.md). */
static inline floats multiply_add(floats a, floats b, floats c) {
#ifdef __FP_FAST_FMAF
#pragma omp simd
    for (int i = 0; i < LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

static inline float sum_of(floats lanes) { /* adds the halves, then their halves, and so on */
    four parts[LANES / 4];
    memcpy(parts, &lanes, sizeof parts);
    for (int half = LANES / 8; half; half /= 2)
        for (int i = 0; i < half; i++) parts[i] += parts[i + half];
    return (parts[0][0] + parts[0][1]) + (parts[0][2] + parts[0][3]);
}

/* Take the numbers at even places, or those at odd places, of a vector of words of two bfloat16 each. A
   bfloat16 is the upper half of a float32, so a shift or a mask converts it. */
static inline floats even(floats two) { return (floats)((words)two << 16); }
static inline floats odd(floats two) { return (floats)((words)two & 0xffff0000); }

/* Compute the dot products of a row of n weights and n_vectors packed vectors, `stride` numbers apart.
   n_vectors is 1 or MAX_BATCH. The order of summation does not depend on n_vectors, so a text gets the
   same bits alone or in a batch. */
static inline void dots(enum kind kind, const void *weight, const float *packed, int stride,
                        int n, int n_vectors, float *sums) {
    const float *w = weight;
    floats left[MAX_BATCH] = {{0}}, right[MAX_BATCH] = {{0}}; /* neither sum waits for the other */
    if (kind == INT8) {
        const int8_t *integer = weight;
        const int16_t *x = (const int16_t *)packed;
        int32_t totals[MAX_BATCH] = {0};
        if (n_vectors == 1) /* a loop of its own: with n_vectors unknown, clang makes no vectors of it */
            for (int i = 0; i < n; i++) totals[0] += integer[i] * x[i];
        else
            for (int i = 0; i < n; i++)
                for (int r = 0; r < MAX_BATCH; r++) totals[r] += integer[i] * x[2 * r * stride + i];
        for (int r = 0; r < n_vectors; r++) sums[r] = (float)totals[r];
        return;
    }
    if (kind == FLOAT32) {
        int i = 0;
        for (; i + 2 * LANES <= n; i += 2 * LANES) {
            floats first = load(w + i), second = load(w + i + LANES);
#pragma GCC unroll 4
            for (int r = 0; r < n_vectors; r++) {
                const float *x = packed + r * stride + i;
                left[r] = multiply_add(first, load(x), left[r]);
                right[r] = multiply_add(second, load(x + LANES), right[r]);
            }
        }
        for (; i < n; i += LANES)
            for (int r = 0; r < n_vectors; r++) {
                floats x = load_some(packed + r * stride + i, n - i);
                left[r] = multiply_add(load_some(w + i, n - i), x, left[r]);
            }
    } else { /* two in a word */
        const float *odd_places = packed + n / 2;
        int i = 0;
        n /= 2;
        /* Two steps at once: on AVX-512 a row of 768 weights, 24 steps, is otherwise an eighth slower
           (docs/notebook.md). */
#pragma GCC unroll 2
        for (; i + LANES <= n; i += LANES) {
            floats two = load(w + i);
#pragma GCC unroll 4
            for (int r = 0; r < n_vectors; r++) {
                left[r] = multiply_add(even(two), load(packed + r * stride + i), left[r]);
                right[r] = multiply_add(odd(two), load(odd_places + r * stride + i), right[r]);
            }
        }
        for (int r = 0; r < n_vectors && i < n; r++) {
            floats two = load_some(w + i, n - i);
            floats first = load_some(packed + r * stride + i, n - i);
            floats second = load_some(odd_places + r * stride + i, n - i);
            left[r] = multiply_add(even(two), first, left[r]);
            right[r] = multiply_add(odd(two), second, right[r]);
        }
    }
    for (int r = 0; r < n_vectors; r++) sums[r] = sum_of(left[r] + right[r]);
}

static inline float dot(enum kind kind, const void *weight, const float *packed, int n) {
    float sum;
    dots(kind, weight, packed, 0, n, 1, &sum);
    return sum;
}

static inline const char *row(const struct matrix *m, int64_t i) {
    return (const char *)m->weight + i * m->columns * BYTES[m->kind];
}

/* Ask memory for the bytes that are read soon. Processors do so by themselves, but not across pages of
   memory, and not far enough ahead for bfloat16 and INT8, which take more instructions a byte. An
   address past the end is harmless. */
static inline void fetch_ahead(const char *weight, const char *end) {
    enum { LINE = 64, AHEAD = 8192 };
    for (; weight < end; weight += LINE) __builtin_prefetch(weight + AHEAD);
}

/* Add row i of a table, which is not INT8, to x. */
static void add_row(const struct matrix *table, int64_t i, float *x) {
    for (int c = 0; c < table->columns; c++)
        x[c] += table->kind == FLOAT32 ? ((const float *)row(table, i))[c]
                                       : from_bits(((const uint16_t *)row(table, i))[c] << 16);
}

struct share { int thread, n_threads; }; /* the work of thread number `thread` of n_threads */

static inline struct share own_share(void) { /* of the thread that calls it */
#ifdef _OPENMP
    return (struct share){omp_get_thread_num(), omp_get_num_threads()};
#else
    return (struct share){0, 1};
#endif
}

static inline int begin(struct share s, int n) { return (int)((int64_t)n * s.thread / s.n_threads); }
static inline int end(struct share s, int n) { return begin((struct share){s.thread + 1, s.n_threads}, n); }

/* Share the rows of a matrix by blocks of 16. A compiled loop has vector instructions and, for the rest,
   others, which may round differently; 16 is a multiple of all vector lengths, so each row is computed
   by the same instructions with any number of threads. */
static inline int first_row(struct share s, int n) { return 16 * begin(s, (n + 15) / 16); }
static inline int end_row(struct share s, int n) {
    int end_of_blocks = 16 * end(s, (n + 15) / 16);
    return end_of_blocks < n ? end_of_blocks : n;
}

/* N vectors, packed for the matrices of one kind and width. */
struct vectors { int N; float *packed, *scale; };

static void pack_all(const struct matrix *m, const float *x, struct vectors to) {
    for (int n = 0; n < to.N; n++)
        to.scale[n] = pack(m->kind, x + n * m->columns, m->columns, to.packed + n * m->columns);
}

/* Compute this thread's rows of y (N, rows) = W x + bias, or y += W x + bias (add). Each weight is read
   from memory once and multiplied with all N vectors. */
static void multiply(const struct matrix *m, struct vectors x, float *y, int add, struct share s) {
    enum { TILE = 8 }; /* rows: they stay in the nearest cache while all vectors pass */
    for (int top = first_row(s, m->rows), end = end_row(s, m->rows); top < end; top += TILE) {
        int bottom = top + TILE < end ? top + TILE : end;
        for (int n = 0, batch; n < x.N; n += batch) {
            batch = n + MAX_BATCH <= x.N ? MAX_BATCH : 1;
            for (int i = top; i < bottom; i++) {
                const char *weight = row(m, i);
                const float *packed = x.packed + n * m->columns;
                float scale = m->scale ? m->scale[i] : 1, bias = m->bias ? m->bias[i] : 0;
                float sums[MAX_BATCH];
                if (m->kind != FLOAT32 && n == 0) fetch_ahead(weight, row(m, i + 1));
                /* Two calls with constants, so that the compiler makes a loop for each. */
                int n_in = m->columns;
                if (batch == MAX_BATCH) dots(m->kind, weight, packed, n_in, n_in, MAX_BATCH, sums);
                else dots(m->kind, weight, packed, n_in, n_in, 1, sums);
                for (int r = 0; r < batch; r++) {
                    float *to = y + (int64_t)(n + r) * m->rows + i;
                    *to = (add ? *to : 0) + sums[r] * (scale * x.scale[n + r]) + bias;
                }
            }
        }
    }
}

/* Compute y (N, rows) = W x + bias for x (N, columns). `workspace` has N (columns + 1) numbers. */
void product(const struct matrix *m, int N, const float *x, float *workspace, int n_threads, float *y) {
    struct vectors vectors = {N, workspace, workspace + (int64_t)N * m->columns};
    pack_all(m, x, vectors);
#pragma omp parallel num_threads(n_threads)
    multiply(m, vectors, y, 0, own_share());
}

/* ---- The steps between the products. ---- */

/* LayerNorm or RMSNorm of x (n,) into out (n,), which may be x. */
static void normalise(const struct norm *norm, const float *x, int n, float eps, float *out) {
    float mean = 0, squares = 0;
    if (norm->centred) {
        for (int i = 0; i < n; i++) mean += x[i];
        mean /= n;
    }
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    float factor = 1 / sqrtf(squares / n + eps);
    for (int i = 0; i < n; i++)
        out[i] = (x[i] - mean) * factor * norm->gain[i] + (norm->shift ? norm->shift[i] : 0);
}

/* Rotary position: rotate each pair (x[i], x[i + D/2]) by its angle at this position. */
static void rotate(const struct model *m, int64_t position, float *x) {
    int half = m->head_dim / 2;
    const float *cosine = m->cosine + position * half, *sine = m->sine + position * half;
    for (int i = 0; i < half; i++) {
        float left = x[i], right = x[i + half];
        x[i] = left * cosine[i] - right * sine[i];
        x[i + half] = right * cosine[i] + left * sine[i];
    }
}

static void norm_and_rotate(const struct model *m, const struct norm *norm, int64_t position, float *x) {
    if (norm->gain) normalise(norm, x, m->head_dim, m->eps, x);
    if (m->cosine) rotate(m, position, x);
}

/* Write x (n,) into the cache, in the cache's number format. */
static void store(enum kind kind, const float *x, int n, void *to) {
    if (kind == FLOAT32) memcpy(to, x, n * sizeof *x);
    else for (int i = 0; i < n; i++) ((uint16_t *)to)[i] = to_bfloat16(x[i]);
}

/* Attention of one head: mixed (D,) = softmax(q k^T / sqrt(D)) v over S tokens. The workspace has
   2 D + S numbers. */
static void attend(const struct model *m, const float *q, const char *keys, const char *values,
                   int64_t S, float *mixed, float *workspace) {
    int D = m->head_dim;
    int64_t bytes = (int64_t)D * BYTES[m->cache_kind];
    float *packed = workspace, *sum = workspace + D, *weight = workspace + 2 * D;
    float largest = -1e30f, total = 0, scale = 1 / sqrtf((float)D);
    pack(m->cache_kind, q, D, packed);
    for (int64_t s = 0; s < S; s++) {
        fetch_ahead(keys + s * bytes, keys + (s + 1) * bytes);
        weight[s] = dot(m->cache_kind, keys + s * bytes, packed, D) * scale;
        largest = fmaxf(largest, weight[s]);
    }
    for (int64_t s = 0; s < S; s++) {
        weight[s] = expf(weight[s] - largest);
        total += weight[s];
    }
    memset(sum, 0, D * sizeof *sum);
    for (int64_t s = 0; s < S; s++) {
        fetch_ahead(values + s * bytes, values + (s + 1) * bytes);
        if (m->cache_kind == FLOAT32) {
            const float *restrict v = (const float *)(values + s * bytes);
            for (int d = 0; d < D; d++) sum[d] += weight[s] * v[d];
        } else {
            const uint16_t *restrict v = (const uint16_t *)(values + s * bytes);
            for (int d = 0; d < D; d++) sum[d] += weight[s] * from_bits((uint32_t)v[d] << 16);
        }
    }
    for (int d = 0; d < D; d++) mixed[d] = sum[d] / total;
}

/* e^-x, at most e^80. With -ffast-math a division may be a product with an estimate of 1/x that is made
   better in steps, and for an infinite x these steps give NaN. */
static inline float exp_minus(float x) { return expf(fminf(-x, 80)); }

/* The activation of the MLP: up = SiLU(gate) up, or without a gate GELU(up), in its tanh form. */
static void activate(float *restrict up, const float *restrict gate, int n) {
    if (gate)
        for (int i = 0; i < n; i++) up[i] *= gate[i] / (1 + exp_minus(gate[i]));
    else
        for (int i = 0; i < n; i++) {
            float u = 0.7978845608f * (up[i] + 0.044715f * up[i] * up[i] * up[i]);
            up[i] /= 1 + exp_minus(2 * u);
        }
}

/* ---- The transformer. ---- */

/* Round n numbers up to lines of the processor's cache, of 16 numbers. A vector that does not begin at a
   line crosses one with each load, and takes a third longer to multiply with (docs/performance.md). */
static int64_t whole_lines(int64_t n) { return (n + 15) / 16 * 16; }
/* The width of the widest vector that is packed. */
static int64_t widest(const struct model *m) {
    int width = m->embedding.columns, heads = m->n_head * m->head_dim, M = m->layers->up.rows;
    width = width > heads ? width : heads;
    return whole_lines(width > M ? width : M);
}

/* The size of the workspace, in numbers: of each thread's part, and of all; its first part is shared. */
static int64_t thread_workspace(const struct model *m, int N, int64_t capacity) {
    return whole_lines(2 * N * widest(m) + 2 * m->head_dim + capacity + N);
}
int64_t workspace_size(const struct model *m, int N, int64_t capacity, int n_threads) {
    int64_t shared = m->embedding.columns + 2 * (m->n_head + m->n_kv_head) * m->head_dim
                   + 2 * m->layers->up.rows;
    return whole_lines(N * shared) + n_threads * thread_workspace(m, N, capacity);
}

/* Read ids (B, T), the tokens of text b at positions lengths[b], lengths[b] + 1, ... Write their keys and
   values into kv (n_layer, B, 2 Hk, capacity, D), and into logits (B, V) the prediction after token
   at[b] of each text. `workspace` has workspace_size(...) numbers. Return 1; or 0, with nothing written,
   if an id is outside the vocabulary. */
int step(const struct model *m, int B, int T, const int64_t *ids, const int64_t *lengths,
         const int64_t *at, char *kv, int64_t capacity, float *workspace, int n_threads,
         float *logits) {
    int C = m->embedding.columns, D = m->head_dim, H = m->n_head, Hk = m->n_kv_head, N = B * T;
    int M = m->layers->up.rows;
    float *x = workspace, *q = x + N * C, *k = q + N * H * D, *v = k + N * Hk * D;
    float *mixed = v + N * Hk * D, *up = mixed + N * H * D, *gate = up + N * M;
    float *of_threads = workspace + whole_lines(gate + N * M - workspace);
    int64_t token_bytes = (int64_t)D * BYTES[m->cache_kind], head_bytes = capacity * token_bytes;
    for (int n = 0; n < N; n++)
        if (ids[n] < 0 || ids[n] >= m->embedding.rows) return 0;

#pragma omp parallel num_threads(n_threads)
    {
        struct share s = own_share();
        float *packed = of_threads + s.thread * thread_workspace(m, N, capacity);
        float *normed = packed + N * widest(m), *of_attention = normed + N * widest(m);
        struct vectors vectors = {N, packed, of_attention + 2 * D + capacity};

        /* the embedding of each token, and of its position */
        for (int n = begin(s, N); n < end(s, N); n++) {
            memset(x + n * C, 0, C * sizeof *x);
            add_row(&m->embedding, ids[n], x + n * C);
            if (m->position.weight) add_row(&m->position, lengths[n / T] + n % T, x + n * C);
        }
#pragma omp barrier
        for (int l = 0; l < m->n_layer; l++) {
            const struct layer *layer = m->layers + l;

            /* norm, then query, key and value of each token */
            for (int n = 0; n < N; n++)
                normalise(&layer->attention_norm, x + n * C, C, m->eps, normed + n * C);
            pack_all(&layer->query, normed, vectors);
            multiply(&layer->query, vectors, q, 0, s);
            multiply(&layer->key, vectors, k, 0, s);
            multiply(&layer->value, vectors, v, 0, s);
#pragma omp barrier
            /* keys and values into the cache, then attention: a thread has whole key-value heads */
            for (int i = begin(s, B * Hk); i < end(s, B * Hk); i++) {
                int b = i / Hk, h = i % Hk;
                char *keys = kv + (((int64_t)l * B + b) * 2 * Hk + h) * head_bytes;
                char *values = keys + Hk * head_bytes;
                for (int n = b * T; n < (b + 1) * T; n++) {
                    int64_t position = lengths[b] + n % T;
                    float *key = k + (n * Hk + h) * D, *value = v + (n * Hk + h) * D;
                    norm_and_rotate(m, &layer->key_norm, position, key);
                    store(m->cache_kind, key, D, keys + position * token_bytes);
                    store(m->cache_kind, value, D, values + position * token_bytes);
                    for (int j = h * (H / Hk); j < (h + 1) * (H / Hk); j++) { /* that share it */
                        float *query = q + (n * H + j) * D;
                        norm_and_rotate(m, &layer->query_norm, position, query);
                        attend(m, query, keys, values, position + 1, mixed + (n * H + j) * D,
                               of_attention);
                    }
                }
            }
#pragma omp barrier
            /* the output of attention, added to the residual stream */
            pack_all(&layer->output, mixed, vectors);
            multiply(&layer->output, vectors, x, 1, s);
#pragma omp barrier
            /* norm, then the MLP, added to the residual stream */
            for (int n = 0; n < N; n++)
                normalise(&layer->mlp_norm, x + n * C, C, m->eps, normed + n * C);
            pack_all(&layer->up, normed, vectors);
            multiply(&layer->up, vectors, up, 0, s);
            if (layer->gate.weight) multiply(&layer->gate, vectors, gate, 0, s);
            for (int n = 0, first = first_row(s, M); n < N; n++)
                activate(up + n * M + first, layer->gate.weight ? gate + n * M + first : NULL,
                     end_row(s, M) - first);
#pragma omp barrier
            pack_all(&layer->down, up, vectors);
            multiply(&layer->down, vectors, x, 1, s);
#pragma omp barrier
        }
        /* the last norm and the logits, for one token of each text */
        for (int b = 0; b < B; b++)
            normalise(&m->norm, x + (b * T + at[b]) * C, C, m->eps, normed + b * C);
        vectors.N = B;
        pack_all(&m->lm_head, normed, vectors);
        multiply(&m->lm_head, vectors, logits, 0, s);
    }
    return 1;
}
