// Image in, class ids out, with TensorRT's C++ API. NOT RUN HERE: compiled against TensorRT's headers, never run on a GPU.
//
//   segment_tensorrt MODEL.engine INPUT.ppm MASK.pgm [HEIGHT WIDTH]
//
// INPUT.ppm: RGB at the network's size; decoding and resizing an image are not in C++ here, runner/predict.py --input does both.
// HEIGHT WIDTH: of the image it was made from; the mask comes back at that size.
// The engine must be built by the TensorRT that this program is linked to, for this GPU: gddctl export FILE.onnx --trt.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>

#include "image.h"

struct Logger : nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kERROR) std::fprintf(stderr, "%s\n", message);
    }
};

static void check(cudaError_t code, const char* what) {
    if (code != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}

static void require(bool holds, const char* what) {
    if (!holds) throw std::runtime_error(what);
}

struct Freer {
    void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, Freer>;

static DeviceMemory on_device(size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "cudaMalloc");
    return DeviceMemory(memory);
}

static std::vector<char> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    require(file.good(), "the engine cannot be read");
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

static Mask segment(const std::string& path, const std::vector<uint8_t>& pixels, int height, int width) {
    Logger logger;
    const std::vector<char> plan = read_file(path);
    std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    require(runtime != nullptr, "TensorRT does not start");
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    require(engine != nullptr, "the engine does not fit this TensorRT and GPU; build it here");
    require(engine->getTensorDataType("image") == nvinfer1::DataType::kUINT8, "not a deploy graph of this release: it must take uint8");
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    require(context != nullptr, "no execution context");
    require(context->setInputShape("image", nvinfer1::Dims4{1, model::kHeight, model::kWidth, 3}), "the engine takes another size");
    std::vector<uint8_t> answer(static_cast<size_t>(model::kHeight) * model::kWidth);
    const DeviceMemory image = on_device(pixels.size()), mask = on_device(answer.size());
    require(context->setTensorAddress("image", image.get()) && context->setTensorAddress("mask", mask.get()), "no tensors 'image' and 'mask'");
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream), "cudaStreamCreate");
    check(cudaMemcpyAsync(image.get(), pixels.data(), pixels.size(), cudaMemcpyHostToDevice, stream), "copy to the GPU");
    require(context->enqueueV3(stream), "the engine did not run");
    check(cudaMemcpyAsync(answer.data(), mask.get(), answer.size(), cudaMemcpyDeviceToHost, stream), "copy from the GPU");
    check(cudaStreamSynchronize(stream), "run");
    check(cudaStreamDestroy(stream), "cudaStreamDestroy");
    return restore(answer.data(), height, width);
}

int main(int count, char** words) try {
    if (count != 4 && count != 6) {
        std::fprintf(stderr, "usage: %s MODEL.engine INPUT.ppm MASK.pgm [HEIGHT WIDTH]\n", words[0]);
        return 2;
    }
    const int height = count == 6 ? std::atoi(words[4]) : model::kHeight, width = count == 6 ? std::atoi(words[5]) : model::kWidth;
    if (height < 1 || width < 1) throw std::runtime_error("HEIGHT and WIDTH must be at least 1");
    const std::vector<uint8_t> pixels = read_input(words[2]);
    write_mask(words[3], segment(words[1], pixels, height, width));
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
}
