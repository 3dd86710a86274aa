/* What this CPU and this kernel let us use. A feature needs the CPU's word (cpuid), the system's
 * saving of its registers (XGETBV), and for AMX a permission asked for once per process. */
#include "kernels/onednn/isa.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_XCOMP_PERMISSION = 0x1023, XFEATURE_TILE_DATA = 18 };

static const struct {
    const char *word; /* of DIPTYCH_CPU_ISA */
    const char *name; /* for people */
} levels[] = {
    [DIP_ISA_BASE] = {"base", "x86-64"},     [DIP_ISA_AVX2] = {"avx2", "avx2"},
    [DIP_ISA_AVX512] = {"avx512", "avx512"}, [DIP_ISA_AVX512_BF16] = {"avx512bf16", "avx512-bf16"},
    [DIP_ISA_AMX] = {"amx", "amx-bf16"},
};

static pthread_once_t detected = PTHREAD_ONCE_INIT;
static dip_cpu_isa_level isa_level;
static char unknown_word[64]; /* what DIPTYCH_CPU_ISA says, if it is none of ours */

static uint64_t enabled_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int has(uint64_t value, uint64_t bits)
{
    return (value & bits) == bits;
}

static dip_cpu_isa_level detect_cpu(void)
{
    unsigned a, b, c, d, b7, c7, d7, a71 = 0;
    const unsigned avx_fma_f16c_osxsave = 1u << 28 | 1u << 12 | 1u << 29 | 1u << 27;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, avx_fma_f16c_osxsave)) return DIP_ISA_BASE;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return DIP_ISA_BASE;
    unsigned n_leaves = a;
    uint64_t state = enabled_state();
    if (!has(b7, 1u << 5) || !has(state, 0x6)) return DIP_ISA_BASE;

    const unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if (!has(b7, f_dq_bw_vl) || !has(state, 0xe6)) return DIP_ISA_AVX2;

    if (n_leaves >= 1) __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    if (!has(a71, 1u << 5)) return DIP_ISA_AVX512;

    const unsigned tile_bf16 = 1u << 24 | 1u << 22;
    if (!has(d7, tile_bf16) || !has(state, 0x60000)) return DIP_ISA_AVX512_BF16;
    if (syscall(SYS_arch_prctl, REQUEST_XCOMP_PERMISSION, XFEATURE_TILE_DATA) != 0)
        return DIP_ISA_AVX512_BF16;
    return DIP_ISA_AMX;
}

static void detect(void)
{
    isa_level = detect_cpu();
    const char *word = getenv("DIPTYCH_CPU_ISA");
    if (word == NULL || word[0] == '\0') return;
    for (int i = 0; i < (int)(sizeof levels / sizeof levels[0]); i++) {
        if (strcmp(word, levels[i].word) != 0) continue;
        if ((dip_cpu_isa_level)i < isa_level) isa_level = (dip_cpu_isa_level)i;
        return;
    }
    strncpy(unknown_word, word, sizeof unknown_word - 1);
}

dip_cpu_isa_level dip_cpu_isa(void)
{
    pthread_once(&detected, detect);
    return isa_level;
}

const char *dip_cpu_isa_unknown_word(void)
{
    pthread_once(&detected, detect);
    return unknown_word[0] != '\0' ? unknown_word : NULL;
}

const char *dip_cpu_isa_name(void)
{
    return levels[dip_cpu_isa()].name;
}

int dip_cpu_has_fast_bf16(void)
{
    return dip_cpu_isa() >= DIP_ISA_AVX512_BF16;
}
