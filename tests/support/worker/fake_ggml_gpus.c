/* Three GPUs for llama.cpp to see, in another order than the driver's. They can only be looked at. */
#include <ggml-backend.h>

/* ggml's own, from ggml-backend-impl.h, which is not installed: all but what tells of the device is left out. */
struct ggml_backend_device {
    const char *(*get_name)(ggml_backend_dev_t);
    const char *(*get_description)(ggml_backend_dev_t);
    void (*get_memory)(ggml_backend_dev_t, size_t *, size_t *);
    enum ggml_backend_dev_type (*get_type)(ggml_backend_dev_t);
    void (*get_props)(ggml_backend_dev_t, struct ggml_backend_dev_props *);
    void *left_out[12];
    const char *name, *bus_id;
};

static const char *name(ggml_backend_dev_t gpu) { return gpu->name; }
static const char *description(ggml_backend_dev_t gpu) { return "a GPU"; }
static enum ggml_backend_dev_type type(ggml_backend_dev_t gpu) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

static void memory(ggml_backend_dev_t gpu, size_t *free, size_t *total) {
    *free = (size_t)70 << 30;
    *total = (size_t)79 << 30;
}

static void props(ggml_backend_dev_t gpu, struct ggml_backend_dev_props *props) {
    props->name = name(gpu);
    props->description = description(gpu);
    memory(gpu, &props->memory_free, &props->memory_total);
    props->type = type(gpu);
    props->device_id = gpu->bus_id;
    props->caps = (struct ggml_backend_dev_caps){true, true, true, true, true};
}

#define GPU(name_, bus_id_) {name, description, memory, type, props, {0}, name_, bus_id_}
static struct ggml_backend_device gpus[] = {
    GPU("CUDA0", "0000:c2:00.0"),
    GPU("CUDA1", "0000:c1:00.0"),
    GPU("Vulkan0", NULL),
};

void appear(void (*ggml_backend_device_register)(ggml_backend_dev_t)) {
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++) ggml_backend_device_register(&gpus[i]);
}
