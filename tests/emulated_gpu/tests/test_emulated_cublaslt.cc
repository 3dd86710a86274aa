/* The emulated cuBLASLt and the 8-bit floats, against plain arithmetic. */
#include "test_support.h"

#include <cublasLt.h>

#include "cuda_bf16.h"
#include "cuda_fp8.h"

namespace
{

#define CHECK_BLAS(call)            assert_string_equal(cublasLtGetStatusName(call), "CUBLAS_STATUS_SUCCESS")
#define CHECK_BLAS_IS(status, call) assert_string_equal(cublasLtGetStatusName(call), #status)

/* Whole numbers, so that every sum is exact in float. */
float whole(uint32_t i)
{
    return (float)((int)(i * 2654435761u >> 28) - 8);
}

/* A column-major matrix on the device, elements of any type. */
struct matrix {
    matrix(cudaDataType_t of, size_t n_rows, size_t n_cols, size_t pad, uint32_t seed)
        : type(of), rows(n_rows), cols(n_cols), ld(n_rows + pad), values(ld * n_cols),
          bytes(ld * n_cols * size())
    {
        for (size_t i = 0; i < values.size(); i++) set(i, whole(seed + (uint32_t)i));
        bytes.upload();
        CHECK_BLAS(cublasLtMatrixLayoutCreate(&layout, type, rows, cols, (int64_t)ld));
    }
    ~matrix() { cublasLtMatrixLayoutDestroy(layout); }
    matrix(const matrix &) = delete;
    matrix &operator=(const matrix &) = delete;

    size_t size() const { return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF ? 2 : 1; }
    void set(size_t i, float value)
    {
        void *to = &bytes.host[i * size()];
        values[i] = value;
        if (type == CUDA_R_32F)
            std::memcpy(to, &value, 4);
        else if (type == CUDA_R_16BF)
            *static_cast<__nv_bfloat16 *>(to) = __float2bfloat16_rn(value);
        else
            bytes.host[i] = __nv_cvt_float_to_fp8(value, __NV_SATFINITE,
                                                  type == CUDA_R_8F_E4M3 ? __NV_E4M3 : __NV_E5M2);
    }
    void download()
    {
        bytes.download();
        for (size_t i = 0; i < values.size(); i++) {
            if (type == CUDA_R_32F)
                std::memcpy(&values[i], &bytes.host[i * 4], 4);
            else
                values[i] =
                    __bfloat162float(*reinterpret_cast<__nv_bfloat16 *>(&bytes.host[i * 2]));
        }
    }
    float at(size_t i, size_t j, bool transpose = false) const
    {
        return transpose ? values[i * ld + j] : values[j * ld + i];
    }

    cudaDataType_t type;
    size_t rows, cols, ld;
    std::vector<float> values;
    device_array<unsigned char> bytes;
    cublasLtMatrixLayout_t layout;
};

struct problem {
    cudaDataType_t a, b, d;
    bool transpose_a, transpose_b, has_bias;
    size_t m, n, k, pad;
    float alpha, beta;
};

class blas
{
  public:
    blas() : workspace(4 << 20)
    {
        CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        CHECK_BLAS(cublasLtCreate(&handle));
        CHECK_BLAS(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        CHECK_BLAS(cublasLtMatmulPreferenceCreate(&preference));
        prefer(4 << 20, 16);
    }
    ~blas()
    {
        cublasLtMatmulPreferenceDestroy(preference);
        cublasLtMatmulDescDestroy(operation);
        cublasLtDestroy(handle);
        cudaStreamDestroy(stream);
    }
    blas(const blas &) = delete;
    blas &operator=(const blas &) = delete;

    template <typename T> void set(cublasLtMatmulDescAttributes_t name, T value)
    {
        CHECK_BLAS(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value));
    }
    template <typename T> void prefer(cublasLtMatmulPreferenceAttributes_t name, T value)
    {
        CHECK_BLAS(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value));
    }
    void prefer(uint64_t n_bytes, uint32_t alignment)
    {
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, n_bytes);
        for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
             i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
            prefer((cublasLtMatmulPreferenceAttributes_t)i, alignment);
    }
    cublasStatus_t ask(const matrix &a, const matrix &b, const matrix &c, const matrix &d)
    {
        return cublasLtMatmulAlgoGetHeuristic(handle, operation, a.layout, b.layout, c.layout,
                                              d.layout, preference, 8, found, &n_found);
    }
    cublasStatus_t run(const matrix &a, const matrix &b, const matrix &c, const matrix &d,
                       float alpha, float beta, const cublasLtMatmulAlgo_t *algo)
    {
        return cublasLtMatmul(handle, operation, &alpha, a.bytes.at, a.layout, b.bytes.at, b.layout,
                              &beta, c.bytes.at, c.layout, d.bytes.at, d.layout, algo, workspace.at,
                              workspace.bytes(), stream);
    }

    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t operation;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[8];
    int n_found = 0;
    cudaStream_t stream;
    device_array<unsigned char> workspace;
};

/* Every algorithm that the heuristic offers gives the product. */
void check_product(const problem &p)
{
    blas with;
    matrix a(p.a, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.pad, 1);
    matrix b(p.b, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.pad, 1000);
    matrix c(p.d, p.m, p.n, p.pad, 5000), bias(p.d, p.m, 1, 0, 9000);
    with.set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    with.set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.has_bias) {
        with.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        with.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, (const void *)bias.bytes.at);
    }
    CHECK_BLAS(with.ask(a, b, c, c));
    assert_true(with.n_found > 0);
    for (int algo = 0; algo < with.n_found; algo++) {
        matrix d(p.d, p.m, p.n, p.pad, 0);
        CHECK_BLAS(with.run(a, b, c, d, p.alpha, p.beta, &with.found[algo].algo));
        CHECK_CUDA(cudaStreamSynchronize(with.stream));
        d.download();
        for (size_t i = 0; i < p.m; i++)
            for (size_t j = 0; j < p.n; j++) {
                float sum = 0;
                for (size_t k = 0; k < p.k; k++)
                    sum += a.at(i, k, p.transpose_a) * b.at(k, j, p.transpose_b);
                float want = p.alpha * sum + p.beta * c.at(i, j);
                if (p.has_bias) want += bias.at(i, 0);
                if (p.d == CUDA_R_16BF) want = __bfloat162float(__float2bfloat16_rn(want));
                assert_float_equal(d.at(i, j), want, 0);
            }
        if (p.pad > 0) assert_float_equal(d.values[p.m], whole((uint32_t)p.m), 0); /* untouched */
    }
}

void test_products(void **)
{
    for (int t = 0; t < 4; t++)
        for (int with = 0; with < 4; with++) {
            const bool ta = t & 1, tb = t & 2, bias = with & 1;
            const float beta = with & 2 ? 1.0f : 0.0f;
            check_product({CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, ta, tb, bias, 5, 7, 3, 0, 1, beta});
            check_product(
                {CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF, ta, tb, bias, 16, 8, 24, 8, 1, beta});
            check_product(
                {CUDA_R_16BF, CUDA_R_16BF, CUDA_R_32F, ta, tb, bias, 9, 1, 17, 2, 2, -beta});
        }
    check_product(
        {CUDA_R_8F_E4M3, CUDA_R_8F_E4M3, CUDA_R_16BF, true, false, false, 16, 32, 48, 0, 1, 0});
    check_product(
        {CUDA_R_8F_E5M2, CUDA_R_8F_E4M3, CUDA_R_32F, true, false, false, 32, 16, 16, 0, 0.5f, 1});
}

void test_fp8_scales(void **)
{
    blas with;
    matrix a(CUDA_R_8F_E4M3, 16, 16, 0, 1), b(CUDA_R_8F_E4M3, 16, 16, 0, 50);
    matrix d(CUDA_R_32F, 16, 16, 0, 0), plain(CUDA_R_32F, 16, 16, 0, 0);
    device_array<float> scales(2);
    scales.host = {0.5f, 0.25f};
    scales.upload();
    with.set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    CHECK_BLAS(with.run(a, b, plain, plain, 1, 0, nullptr));
    with.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scales.at);
    with.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scales.at + 1);
    CHECK_BLAS(with.run(a, b, d, d, 1, 0, nullptr));
    CHECK_CUDA(cudaStreamSynchronize(with.stream));
    d.download();
    plain.download();
    for (size_t i = 0; i < 256; i++) assert_float_equal(d.values[i], plain.values[i] * 0.125f, 0);
}

/* One thing is wrong at a time. */
void test_refusals(void **)
{
    blas with;
    matrix a(CUDA_R_16BF, 16, 8, 0, 1), b(CUDA_R_16BF, 8, 24, 0, 1), d(CUDA_R_16BF, 16, 24, 0, 1);
    matrix wide(CUDA_R_16BF, 16, 25, 0, 1), floats(CUDA_R_32F, 16, 8, 0, 1);
    matrix fp8(CUDA_R_8F_E4M3, 16, 16, 0, 1), square(CUDA_R_16BF, 16, 16, 0, 1);
    matrix odd(CUDA_R_16BF, 16, 24, 1, 1);
    CHECK_BLAS(with.ask(a, b, d, d));
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE, with.ask(b, a, d, d));
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE, with.ask(a, b, wide, d));
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE, with.ask(a, b, d, wide));
    CHECK_BLAS_IS(CUBLAS_STATUS_NOT_SUPPORTED, with.ask(floats, b, d, d));
    CHECK_BLAS_IS(CUBLAS_STATUS_NOT_SUPPORTED, with.ask(fp8, fp8, square, square)); /* not TN */
    with.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_GELU);
    CHECK_BLAS_IS(CUBLAS_STATUS_NOT_SUPPORTED, with.ask(a, b, d, d));
    with.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE, with.run(a, b, d, d, 1, 0, nullptr)); /* no bias */
    with.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);

    cublasLtMatrixLayout_t narrow;
    CHECK_BLAS(cublasLtMatrixLayoutCreate(&narrow, CUDA_R_16BF, 16, 8, 15)); /* ld < rows */
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE,
                  cublasLtMatmulAlgoGetHeuristic(with.handle, with.operation, narrow, b.layout,
                                                 d.layout, d.layout, with.preference, 8, with.found,
                                                 &with.n_found));
    CHECK_BLAS(cublasLtMatrixLayoutDestroy(narrow));

    /* An algorithm for aligned matrices meets others; bytes that are no algorithm. */
    CHECK_BLAS(with.ask(a, b, d, d));
    cublasLtMatmulHeuristicResult_t first = with.found[0], checked;
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE, with.run(a, b, odd, odd, 1, 0, &first.algo));
    CHECK_BLAS_IS(CUBLAS_STATUS_NOT_SUPPORTED,
                  cublasLtMatmulAlgoCheck(with.handle, with.operation, a.layout, b.layout,
                                          odd.layout, odd.layout, &first.algo, &checked));
    CHECK_BLAS(cublasLtMatmulAlgoCheck(with.handle, with.operation, a.layout, b.layout, d.layout,
                                       d.layout, &first.algo, &checked));
    assert_int_equal(checked.workspaceSize, first.workspaceSize);
    first.algo.data[7] = 1;
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE, with.run(a, b, d, d, 1, 0, &first.algo));
    uint32_t four = 0;
    CHECK_BLAS_IS(CUBLAS_STATUS_INVALID_VALUE,
                  cublasLtMatmulPreferenceSetAttribute(with.preference,
                                                       CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                       &four, sizeof four));
    expect_death("D overlaps an operand", [&] {
        with.run(square, square, square, square, 1, 0, nullptr);
        cudaStreamSynchronize(with.stream);
    });
}

void test_heuristic_keeps_to_preferences(void **)
{
    blas with;
    matrix a(CUDA_R_16BF, 16, 16, 0, 1), d(CUDA_R_16BF, 16, 16, 0, 1);
    CHECK_BLAS(with.ask(a, a, d, d));
    const int n_all = with.n_found;
    bool is_ours = false;
    for (int i = 0; i < n_all; i++) is_ours |= with.found[i].workspaceSize > 0;
    assert_true(is_ours);
    with.prefer(0, 16);
    CHECK_BLAS(with.ask(a, a, d, d));
    assert_true(with.n_found > 0 && with.n_found < n_all);
    for (int i = 0; i < with.n_found; i++) assert_int_equal(with.found[i].workspaceSize, 0);
    with.prefer(4 << 20, 2);
    CHECK_BLAS(with.ask(a, a, d, d));
    assert_true(with.n_found > 0 && with.n_found < n_all);
    CHECK_BLAS(cublasLtMatmulAlgoGetHeuristic(with.handle, with.operation, a.layout, a.layout,
                                              d.layout, d.layout, with.preference, 1, with.found,
                                              &with.n_found));
    assert_int_equal(with.n_found, 1);
}

/* Does each offered algorithm give the same bits four times? */
bool is_deterministic(blas &with)
{
    matrix a(CUDA_R_32F, 8, 64, 0, 1), b(CUDA_R_32F, 64, 8, 0, 77), d(CUDA_R_32F, 8, 8, 0, 0);
    for (size_t i = 0; i < a.values.size(); i++) a.set(i, 1.0f / (1.0f + (float)i));
    a.bytes.upload();
    CHECK_BLAS(with.ask(a, b, d, d));
    bool same = true;
    for (int algo = 0; algo < with.n_found; algo++) {
        std::vector<float> first;
        for (int i = 0; i < 4; i++) {
            CHECK_BLAS(with.run(a, b, d, d, 1, 0, &with.found[algo].algo));
            CHECK_CUDA(cudaStreamSynchronize(with.stream));
            d.download();
            if (i == 0) first = d.values;
            same = same && first == d.values;
        }
    }
    return same;
}

void test_determinism_is_a_choice(void **)
{
    blas with;
    assert_false(is_deterministic(with));
    with.prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                (uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    assert_true(is_deterministic(with));
    assert_true(with.n_found > 1);
}

void test_runs_on_its_stream(void **)
{
    blas with;
    matrix a(CUDA_R_32F, 4, 4, 0, 1), d(CUDA_R_32F, 4, 4, 0, 0);
    const std::vector<float> before = d.values;
    CHECK_BLAS(with.run(a, a, d, d, 1, 0, nullptr));
    d.download();
    assert_true(d.values == before);
    CHECK_CUDA(cudaStreamSynchronize(with.stream));
    d.download();
    assert_false(d.values == before);
}

void test_fp8(void **)
{
    const __nv_fp8_interpretation_t kinds[] = {__NV_E4M3, __NV_E5M2};
    const float largest[] = {448, 57344}, smallest[] = {1.0f / 512, 1.0f / 65536};
    for (int kind = 0; kind < 2; kind++) {
        auto value = [&](int bits) {
            return emulated::fp8_to_float((__nv_fp8_storage_t)bits, kinds[kind]);
        };
        auto code = [&](float x, __nv_saturation_t how = __NV_SATFINITE) {
            return (int)__nv_cvt_float_to_fp8(x, how, kinds[kind]);
        };
        const int n_finite = kind == 0 ? 0x7f : 0x7c;
        assert_float_equal(value(1), smallest[kind], 0);
        assert_float_equal(value(n_finite - 1), largest[kind], 0);
        for (int bits = 0; bits < n_finite; bits++) {
            assert_int_equal(code(value(bits)), bits);
            assert_int_equal(code(-value(bits)), bits | 0x80);
            if (bits + 1 == n_finite) break;
            const float middle = 0.5f * (value(bits) + value(bits + 1));
            assert_true(value(bits) < value(bits + 1));
            assert_int_equal(code(middle), bits % 2 == 0 ? bits : bits + 1); /* to even */
            assert_int_equal(code(std::nextafter(middle, 0.0f)), bits);
            assert_int_equal(code(std::nextafter(middle, 1e9f)), bits + 1);
        }
        assert_int_equal(code(1e9f), n_finite - 1);
        assert_int_equal(code(-INFINITY), (n_finite - 1) | 0x80);
        assert_int_equal(code(1e9f, __NV_NOSAT), kind == 0 ? 0x7f : 0x7c);
        assert_int_equal(code(NAN) & 0x7f, 0x7f);
        assert_true(std::isnan(value(0x7f)));
    }
    assert_true(std::isinf(emulated::fp8_to_float(0x7c, __NV_E5M2)));
    assert_float_equal((float)__nv_fp8_e4m3(3.3f), 3.25f, 0);
    assert_int_equal(__nv_cvt_float2_to_fp8x2(make_float2(1, 2), __NV_SATFINITE, __NV_E4M3),
                     0x4038);
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_fp8_scales),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_heuristic_keeps_to_preferences),
        cmocka_unit_test(test_determinism_is_a_choice),
        cmocka_unit_test(test_runs_on_its_stream),
        cmocka_unit_test(test_fp8),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
