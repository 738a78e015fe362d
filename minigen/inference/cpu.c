/* A few tokens more of each text: what minigen/model.py computes, at the speed of memory.

   minigen/inference/cpu.py compiles this file and calls `step`. Weights are read where PyTorch keeps them.

   Shapes: B texts, T tokens of each, N = B T vectors; C width of the stream, D width of a head, H query
   heads on Hk key and value heads, M width of the MLP, V vocabulary. The cache of a layer is
   (B, 2 Hk, capacity, D): keys, then values.

   All threads run through the whole of `step`. Each takes its share of the rows of a matrix, and at a
   barrier it waits until the others have theirs. What is cheap, such as a norm, each does for itself. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum kind { FLOAT32, BFLOAT16, INT8 };
static const int BYTES[] = {4, 2, 1};
enum { MANY = 4 }; /* vectors that a weight is multiplied with at once */

struct matrix { /* y = W x + bias, W (rows, columns) */
    const void *weight;
    const float *scale; /* of each row of an INT8 one */
    const float *bias;  /* or NULL */
    int kind, rows, columns;
};

struct norm {
    const float *gain, *shift; /* gain NULL: no norm; shift may be NULL */
    int centred;               /* LayerNorm, which subtracts the mean, or RMSNorm */
};

struct layer {
    struct norm attention_norm, query_norm, key_norm, mlp_norm;
    struct matrix query, key, value, output, up, gate, down; /* no gate: GELU instead of SwiGLU */
};

struct model {
    struct matrix embedding, position, head; /* position: NULL with rotary positions */
    struct norm norm;
    const struct layer *layers;
    const float *cosine, *sine; /* (positions, D / 2), or NULL */
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

static inline uint16_t to_bfloat16(float value) { /* to the nearest, ties to even */
    uint32_t bits = to_bits(value);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- A row of weights times a vector. Vectors are arranged for the weights first. ---- */

/* Arrange x (n,) for products with weights of this kind. Returns what to multiply products by.

   FLOAT32: as it is. BFLOAT16: first the numbers at even places, then those at odd ones, because two
   weights come in one word. INT8: as whole numbers, the largest that no sum can overflow with. */
static float arrange(enum kind kind, const float *restrict x, int n, float *restrict ready) {
    if (kind == FLOAT32) {
        memcpy(ready, x, n * sizeof *x);
    } else if (kind == BFLOAT16) {
        for (int i = 0; i < n / 2; i++) {
            ready[i] = x[2 * i];
            ready[n / 2 + i] = x[2 * i + 1];
        }
    } else {
        int16_t *whole = (int16_t *)ready;
        int most = INT32_MAX / (127 * n) < INT16_MAX ? INT32_MAX / (127 * n) : INT16_MAX;
        /* The largest |x|, found as whole numbers: there NaN is above all others, so it stays. It
           begins above zero, which nothing could be divided by. */
        uint32_t bits = to_bits(1e-30f);
        for (int i = 0; i < n; i++) {
            uint32_t other = to_bits(x[i]) & 0x7fffffff;
            bits = bits > other ? bits : other;
        }
        float step = from_bits(bits) / (float)most;
        for (int i = 0; i < n; i++) whole[i] = (int16_t)rintf(x[i] / step);
        return step;
    }
    return 1;
}

typedef float floats __attribute__((vector_size(64))), eight __attribute__((vector_size(32))),
    four __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(64)));
enum { LANES = 16 };

static inline floats load(const void *from) {
    floats lanes;
    memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

static inline floats load_some(const void *from, int n) { /* and zeros behind them */
    floats lanes = {0};
    memcpy(&lanes, from, (n < LANES ? n : LANES) * sizeof(float));
    return lanes;
}

static inline float sum_of(floats lanes) { /* by halves */
    eight halves[2];
    memcpy(halves, &lanes, sizeof halves);
    halves[0] += halves[1];
    four quarters[2];
    memcpy(quarters, halves, sizeof quarters);
    four sum = quarters[0] + quarters[1];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Of 16 words, each of two bfloat16: the numbers at even places, and those at odd ones. */
static inline floats even(floats two) { return (floats)((words)two << 16); }
static inline floats odd(floats two) { return (floats)((words)two & 0xffff0000); }

/* A row of n weights times `of` vectors, each arranged, `apart` numbers from one to the next. What is
   added to what, and when, does not depend on how many there are: a text is the same alone. */
static inline void dots(enum kind kind, const void *weight, const float *ready, int apart, int n,
                        int of, float *sums) {
    const float *w = weight;
    floats left[MANY] = {{0}}, right[MANY] = {{0}}; /* two sums: one need not wait for the other */
    if (kind == INT8) {
        int32_t whole[MANY] = {0};
        for (int i = 0; i < n; i++)
            for (int r = 0; r < of; r++)
                whole[r] += ((const int8_t *)weight)[i] * ((const int16_t *)(ready + r * apart))[i];
        for (int r = 0; r < of; r++) sums[r] = (float)whole[r];
        return;
    }
    if (kind == FLOAT32) {
        int i = 0;
        for (; i + 2 * LANES <= n; i += 2 * LANES) {
            floats first = load(w + i), second = load(w + i + LANES);
#pragma GCC unroll 4
            for (int r = 0; r < of; r++) {
                left[r] += first * load(ready + r * apart + i);
                right[r] += second * load(ready + r * apart + i + LANES);
            }
        }
        for (; i < n; i += LANES)
            for (int r = 0; r < of; r++)
                left[r] += load_some(w + i, n - i) * load_some(ready + r * apart + i, n - i);
    } else { /* the upper half of a float32, two in a word */
        const float *rest = ready + n / 2;
        int i = 0;
        n /= 2;
        for (; i + LANES <= n; i += LANES) {
            floats two = load(w + i);
#pragma GCC unroll 4
            for (int r = 0; r < of; r++) {
                left[r] += even(two) * load(ready + r * apart + i);
                right[r] += odd(two) * load(rest + r * apart + i);
            }
        }
        for (int r = 0; r < of && i < n; r++) {
            floats two = load_some(w + i, n - i);
            left[r] += even(two) * load_some(ready + r * apart + i, n - i);
            right[r] += odd(two) * load_some(rest + r * apart + i, n - i);
        }
    }
    for (int r = 0; r < of; r++) sums[r] = sum_of(left[r] + right[r]);
}

static inline float dot(enum kind kind, const void *weight, const float *ready, int n) {
    float sum;
    dots(kind, weight, ready, 0, n, 1, &sum);
    return sum;
}

static inline const char *row(const struct matrix *m, int64_t i) {
    return (const char *)m->weight + i * m->columns * BYTES[m->kind];
}

/* Processors fetch ahead of what is read in order, but not across pages of memory, and too little
   where fewer bytes are more work. To ask for what is behind the end does no harm. */
static inline void fetch_ahead(const char *weight, const char *end) {
    enum { LINE = 64, AHEAD = 8192 };
    for (; weight < end; weight += LINE) __builtin_prefetch(weight + AHEAD);
}

/* x += row i of a table that is not INT8. */
static void add_row(const struct matrix *table, int64_t i, float *x) {
    for (int c = 0; c < table->columns; c++)
        x[c] += table->kind == FLOAT32 ? ((const float *)row(table, i))[c]
                                       : from_bits(((const uint16_t *)row(table, i))[c] << 16);
}

struct share { int thread, of; }; /* which part of the work is this thread's */

static inline int begin(struct share s, int n) { return (int)((int64_t)n * s.thread / s.of); }
static inline int end(struct share s, int n) { return (int)((int64_t)n * (s.thread + 1) / s.of); }

/* Of the rows of a matrix, by sixteens: then all is computed alike, however many threads there are. */
static inline int first_row(struct share s, int n) { return 16 * begin(s, (n + 15) / 16); }
static inline int end_row(struct share s, int n) {
    int end_of_sixteens = 16 * end(s, (n + 15) / 16);
    return end_of_sixteens < n ? end_of_sixteens : n;
}

/* N vectors, arranged for a matrix. */
struct vectors { int N; float *ready, *scale; };

static void arrange_all(const struct matrix *m, const float *x, struct vectors to) {
    for (int n = 0; n < to.N; n++)
        to.scale[n] = arrange(m->kind, x + n * m->columns, m->columns, to.ready + n * m->columns);
}

/* This thread's rows of y (N, rows) = W x + bias, or y += W x + bias. */
static void multiply(const struct matrix *m, struct vectors x, float *y, int add, struct share s) {
    enum { TILE = 8 }; /* rows, which stay in the nearest cache while vector after vector passes */
    for (int top = first_row(s, m->rows), end = end_row(s, m->rows); top < end; top += TILE) {
        int bottom = top + TILE < end ? top + TILE : end;
        for (int n = 0, of; n < x.N; n += of) {
            of = n + MANY <= x.N ? MANY : 1;
            for (int i = top; i < bottom; i++) {
                const char *weight = row(m, i);
                const float *ready = x.ready + n * m->columns;
                float scale = m->scale ? m->scale[i] : 1, bias = m->bias ? m->bias[i] : 0;
                float sums[MANY];
                if (m->kind != FLOAT32 && n == 0) fetch_ahead(weight, row(m, i + 1));
                /* Constants, so that the compiler makes a loop for each. */
                if (of == MANY) dots(m->kind, weight, ready, m->columns, m->columns, MANY, sums);
                else dots(m->kind, weight, ready, m->columns, m->columns, 1, sums);
                for (int r = 0; r < of; r++) {
                    float *to = y + (int64_t)(n + r) * m->rows + i;
                    *to = (add ? *to : 0) + sums[r] * (scale * x.scale[n + r]) + bias;
                }
            }
        }
    }
}

/* ---- What stands between the products. ---- */

static void normalise(const struct norm *norm, const float *x, int n, float eps, float *out) {
    float mean = 0, square = 0;
    if (norm->centred) {
        for (int i = 0; i < n; i++) mean += x[i];
        mean /= n;
    }
    for (int i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    float factor = 1 / sqrtf(square / n + eps);
    for (int i = 0; i < n; i++)
        out[i] = (x[i] - mean) * factor * norm->gain[i] + (norm->shift ? norm->shift[i] : 0);
}

/* Rotary position: turn the pairs (x[i], x[i + D/2]). */
static void rotate(const struct model *m, int64_t position, float *x) {
    int half = m->head_dim / 2;
    const float *cosine = m->cosine + position * half, *sine = m->sine + position * half;
    for (int i = 0; i < half; i++) {
        float left = x[i], right = x[i + half];
        x[i] = left * cosine[i] - right * sine[i];
        x[i + half] = right * cosine[i] + left * sine[i];
    }
}

static void norm_and_rotate(const struct model *m, const struct norm *norm, int64_t at, float *x) {
    if (norm->gain) normalise(norm, x, m->head_dim, m->eps, x);
    if (m->cosine) rotate(m, at, x);
}

static void store(enum kind kind, const float *x, int n, void *to) {
    if (kind == FLOAT32) memcpy(to, x, n * sizeof *x);
    else for (int i = 0; i < n; i++) ((uint16_t *)to)[i] = to_bfloat16(x[i]);
}

/* mixed (D,) = softmax(q k^T / sqrt(D)) v over S tokens; mine: room for 2 D + S numbers. */
static void attend(const struct model *m, const float *q, const char *keys, const char *values,
                   int64_t S, float *mixed, float *mine) {
    int D = m->head_dim;
    int64_t bytes = (int64_t)D * BYTES[m->cache_kind];
    float *ready = mine, *sum = mine + D, *chance = mine + 2 * D;
    float largest = -1e30f, total = 0, scale = 1 / sqrtf((float)D);
    arrange(m->cache_kind, q, D, ready);
    for (int64_t s = 0; s < S; s++) {
        fetch_ahead(keys + s * bytes, keys + (s + 1) * bytes);
        chance[s] = dot(m->cache_kind, keys + s * bytes, ready, D) * scale;
        largest = fmaxf(largest, chance[s]);
    }
    for (int64_t s = 0; s < S; s++) {
        chance[s] = expf(chance[s] - largest);
        total += chance[s];
    }
    memset(sum, 0, D * sizeof *sum);
    for (int64_t s = 0; s < S; s++) {
        fetch_ahead(values + s * bytes, values + (s + 1) * bytes);
        if (m->cache_kind == FLOAT32) {
            const float *restrict v = (const float *)(values + s * bytes);
            for (int d = 0; d < D; d++) sum[d] += chance[s] * v[d];
        } else {
            const uint16_t *restrict v = (const uint16_t *)(values + s * bytes);
            for (int d = 0; d < D; d++) sum[d] += chance[s] * from_bits((uint32_t)v[d] << 16);
        }
    }
    for (int d = 0; d < D; d++) mixed[d] = sum[d] / total;
}

/* Softly switched off where negative: GELU (its tanh form), or SiLU of a gate. */
static void bend(float *restrict up, const float *restrict gate, int n) {
    if (gate)
        for (int i = 0; i < n; i++) up[i] *= gate[i] / (1 + expf(-gate[i]));
    else
        for (int i = 0; i < n; i++) {
            float u = 0.7978845608f * (up[i] + 0.044715f * up[i] * up[i] * up[i]);
            up[i] /= 1 + expf(-2 * u);
        }
}

/* ---- The transformer. ---- */

/* How many numbers of room `step` needs: what all threads share, and each thread's own. A vector
   that lies across the cache's lines, of 16 numbers, would take a third longer to multiply with. */
static int64_t whole_lines(int64_t n) { return (n + 15) / 16 * 16; }
static int64_t widest(const struct model *m) {
    int width = m->embedding.columns, heads = m->n_head * m->head_dim, M = m->layers->up.rows;
    width = width > heads ? width : heads;
    return whole_lines(width > M ? width : M);
}
static int64_t own_room(const struct model *m, int N, int64_t capacity) {
    return whole_lines(2 * N * widest(m) + 2 * m->head_dim + capacity + N);
}
int64_t room(const struct model *m, int N, int64_t capacity, int n_threads) {
    int64_t shared = m->embedding.columns + 2 * (m->n_head + m->n_kv_head) * m->head_dim
                   + 2 * m->layers->up.rows;
    return whole_lines(N * shared) + n_threads * own_room(m, N, capacity);
}

/* Feed ids (B, T) at positions lengths[b] and on. Writes kv (n_layer, B, 2 Hk, capacity, D), and the
   logits (B, V) behind the token at[b] of each text. Returns whether all ids are known. */
int step(const struct model *m, int B, int T, const int64_t *ids, const int64_t *lengths,
         const int64_t *at, char *kv, int64_t capacity, float *shared, int n_threads, float *logits) {
    int C = m->embedding.columns, D = m->head_dim, H = m->n_head, Hk = m->n_kv_head, N = B * T;
    int M = m->layers->up.rows;
    float *x = shared, *q = x + N * C, *k = q + N * H * D, *v = k + N * Hk * D;
    float *mixed = v + N * Hk * D, *up = mixed + N * H * D, *gate = up + N * M;
    float *rest = shared + whole_lines(gate + N * M - shared);
    int64_t token_bytes = (int64_t)D * BYTES[m->cache_kind], head_bytes = capacity * token_bytes;
    for (int n = 0; n < N; n++)
        if (ids[n] < 0 || ids[n] >= m->embedding.rows) return 0;

#pragma omp parallel num_threads(n_threads)
    {
        struct share s = {0, 1};
#ifdef _OPENMP
        s = (struct share){omp_get_thread_num(), omp_get_num_threads()};
#endif
        float *mine = rest + s.thread * own_room(m, N, capacity);
        float *normed = mine + N * widest(m), *room = normed + N * widest(m);
        struct vectors vectors = {N, mine, room + 2 * D + capacity};

        for (int n = begin(s, N); n < end(s, N); n++) {
            memset(x + n * C, 0, C * sizeof *x);
            add_row(&m->embedding, ids[n], x + n * C);
            if (m->position.weight) add_row(&m->position, lengths[n / T] + n % T, x + n * C);
        }
#pragma omp barrier
        for (int l = 0; l < m->n_layer; l++) {
            const struct layer *layer = m->layers + l;

            for (int n = 0; n < N; n++)
                normalise(&layer->attention_norm, x + n * C, C, m->eps, normed + n * C);
            arrange_all(&layer->query, normed, vectors);
            multiply(&layer->query, vectors, q, 0, s);
            multiply(&layer->key, vectors, k, 0, s);
            multiply(&layer->value, vectors, v, 0, s);
#pragma omp barrier
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
                    for (int j = h * (H / Hk); j < (h + 1) * (H / Hk); j++) { /* who shares it */
                        float *query = q + (n * H + j) * D;
                        norm_and_rotate(m, &layer->query_norm, position, query);
                        attend(m, query, keys, values, position + 1, mixed + (n * H + j) * D, room);
                    }
                }
            }
#pragma omp barrier
            arrange_all(&layer->output, mixed, vectors);
            multiply(&layer->output, vectors, x, 1, s);
#pragma omp barrier
            for (int n = 0; n < N; n++)
                normalise(&layer->mlp_norm, x + n * C, C, m->eps, normed + n * C);
            arrange_all(&layer->up, normed, vectors);
            multiply(&layer->up, vectors, up, 0, s);
            if (layer->gate.weight) multiply(&layer->gate, vectors, gate, 0, s);
            for (int n = 0, first = first_row(s, M); n < N; n++)
                bend(up + n * M + first, layer->gate.weight ? gate + n * M + first : NULL,
                     end_row(s, M) - first);
#pragma omp barrier
            arrange_all(&layer->down, up, vectors);
            multiply(&layer->down, vectors, x, 1, s);
#pragma omp barrier
        }
        for (int b = 0; b < B; b++)
            normalise(&m->norm, x + (b * T + at[b]) * C, C, m->eps, normed + b * C);
        vectors.N = B;
        arrange_all(&m->head, normed, vectors);
        multiply(&m->head, vectors, logits, 0, s);
    }
    return 1;
}
