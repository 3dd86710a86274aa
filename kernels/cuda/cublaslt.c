#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The library must be of the major version whose header this file was compiled with. */
#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define LIBRARY    "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)
#define TOOLKIT    "/usr/local/cuda-" TEXT(CUBLAS_VER_MAJOR)

/* Where the file may lie: in the value of a variable (if it has one) + a folder. */
static const struct {
    const char *variable, *folder;
} places[] = {
    {NULL, ""}, /* LD_LIBRARY_PATH, ld.so.cache */
    {"CUDA_HOME", "/lib64/"},
    {"CUDA_PATH", "/lib64/"},
    {NULL, "/usr/local/cuda/lib64/"},
    {NULL, TOOLKIT "/lib64/"},
    {NULL, "/opt/cuda/lib64/"},
};
enum { N_PLACES = sizeof places / sizeof places[0], PATH_BYTES = 512 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static dip_cublaslt table;
static bool loaded;

static bool find_functions(void *library)
{
#define FIND(function)                                                                             \
    {                                                                                              \
        void *symbol = dlsym(library, #function);                                                  \
        if (!symbol) return false;                                                                 \
        memcpy(&table.function, &symbol, sizeof symbol);                                           \
    }
    DIP_CUBLASLT_FUNCTIONS(FIND)
#undef FIND
    return true;
}

/* Try one file; if it will not do, add it to `tried`. */
static bool load_file(const char *path, char *tried, size_t n_bytes)
{
    const size_t used = strlen(tried);
    const char *comma = used > 0 ? ", " : "";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library && find_functions(library)) return true;
    snprintf(tried + used, n_bytes - used, library ? "%s%s (lacks functions)" : "%s%s", comma,
             path);
    if (library) dlclose(library);
    return false;
}

static dip_status load(void)
{
    char tried[2048] = "";
    const char *chosen = getenv("DIPTYCH_CUBLASLT");
    if (chosen && chosen[0] != '\0') {
        loaded = load_file(chosen, tried, sizeof tried);
    } else {
        for (int i = 0; i < N_PLACES && !loaded; i++) {
            char path[PATH_BYTES];
            const char *value = places[i].variable ? getenv(places[i].variable) : "";
            if (!value || (places[i].variable && value[0] == '\0')) continue;
            snprintf(path, sizeof path, "%s%s" LIBRARY, value, places[i].folder);
            loaded = load_file(path, tried, sizeof tried);
        }
    }
    if (loaded) return DIP_OK;
    return dip_fail(DIP_UNSUPPORTED,
                    "cannot load cuBLASLt " TEXT(
                        CUBLAS_VER_MAJOR) ", which comes with the CUDA "
                                          "toolkit; tried %s (DIPTYCH_CUBLASLT can name the file)",
                    tried);
}

dip_status dip_cublaslt_load(const dip_cublaslt **blas)
{
    pthread_mutex_lock(&lock);
    dip_status status = loaded ? DIP_OK : load();
    pthread_mutex_unlock(&lock);
    *blas = status == DIP_OK ? &table : NULL;
    return status;
}
