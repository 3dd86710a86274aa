/* test_support.h - what the emulated GPU's own tests share. */
#ifndef EMULATED_GPU_TEST_SUPPORT_H
#define EMULATED_GPU_TEST_SUPPORT_H

#include <cstdarg>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "cuda_runtime.h"

#define CHECK_CUDA(call)           assert_string_equal(cudaGetErrorName(call), "cudaSuccess")
#define CHECK_CUDA_IS(error, call) assert_string_equal(cudaGetErrorName(call), #error)

/* Run `body` in a process of its own. It must fail, saying `words`. */
template <typename F> void expect_death(const char *words, F body)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    std::fflush(nullptr);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        body();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char part[4096];
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) said.append(part, (size_t)n);
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail_msg("it did not fail: %s", words);
    if (said.find(words) == std::string::npos)
        fail_msg("\"%s\" is not in: %s", words, said.c_str());
}

/* Device memory with a copy on the host. */
template <typename T> class device_array
{
  public:
    explicit device_array(size_t n) : host(n)
    {
        CHECK_CUDA(cudaMalloc(&at, n * sizeof(T)));
        CHECK_CUDA(cudaMemset(at, 0, n * sizeof(T)));
    }
    ~device_array() { cudaFree(at); }
    device_array(const device_array &) = delete;
    device_array &operator=(const device_array &) = delete;
    void upload() { CHECK_CUDA(cudaMemcpy(at, host.data(), bytes(), cudaMemcpyHostToDevice)); }
    void download() { CHECK_CUDA(cudaMemcpy(host.data(), at, bytes(), cudaMemcpyDeviceToHost)); }
    size_t bytes() const { return host.size() * sizeof(T); }
    T *at = nullptr;
    std::vector<T> host;
};

/* An environment variable for the length of a block. */
class environment
{
  public:
    environment(const char *variable, const char *value) : name(variable)
    {
        const char *old = std::getenv(variable);
        had = old != nullptr;
        before = old ? old : "";
        setenv(variable, value, 1);
    }
    ~environment()
    {
        if (had)
            setenv(name, before.c_str(), 1);
        else
            unsetenv(name);
    }

  private:
    const char *name;
    std::string before;
    bool had;
};

#endif
