/* A few tokens more of each text: what minigen/model.py computes, at the speed of memory.

   minigen/decoder.py compiles this file and calls `step`. Weights are read where PyTorch keeps them.

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
        uint32_t bits = to_bits(1e-30f); /* as whole numbers, NaN is the largest of all: it stays */
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

static inline float dot(enum kind kind, const void *weight, const float *restrict ready, int n) {
    if (kind == FLOAT32) {
        const float *restrict w = weight;
        float sum = 0;
        for (int i = 0; i < n; i++) sum += w[i] * ready[i];
        return sum;
    }
    if (kind == BFLOAT16) { /* the upper half of a float32 */
        const uint32_t *restrict w = weight;
        const float *restrict odd = ready + n / 2;
        float left = 0, right = 0; /* two sums, so that one need not wait for the other */
        for (int i = 0; i < n / 2; i++) {
            left += from_bits(w[i] << 16) * ready[i];
            right += from_bits(w[i] & 0xffff0000) * odd[i];
        }
        return left + right;
    }
    const int8_t *restrict w = weight;
    const int16_t *restrict whole = (const int16_t *)ready;
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += w[i] * whole[i];
    return (float)sum;
}

static inline const char *row(const struct matrix *m, int64_t i) {
    static const int bytes[] = {4, 2, 1};
    return (const char *)m->weight + i * m->columns * bytes[m->kind];
}

/* Processors fetch ahead of what is read in order, but not across pages of memory, and too little
   where fewer bytes are more work. */
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
    for (int i = first_row(s, m->rows); i < end_row(s, m->rows); i++) {
        const char *weight = row(m, i);
        if (m->kind != FLOAT32) fetch_ahead(weight, row(m, i + 1));
        float scale = m->scale ? m->scale[i] : 1, bias = m->bias ? m->bias[i] : 0;
        for (int n = 0; n < x.N; n++) {
            float *to = y + (int64_t)n * m->rows + i;
            float sum = dot(m->kind, weight, x.ready + n * m->columns, m->columns);
            *to = (add ? *to : 0) + sum * (scale * x.scale[n]) + bias;
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
    int64_t bytes = (int64_t)D * (m->cache_kind == FLOAT32 ? 4 : 2);
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
    int64_t token_bytes = D * (m->cache_kind == FLOAT32 ? 4 : 2), head_bytes = capacity * token_bytes;
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
