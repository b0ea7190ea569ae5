/* The kernels as a module of Python: arguments are checked against their kinds, the interpreter is released. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <string.h>

#include "argument.h"

#define MOST_ARGUMENTS 20

static const char *const names[] = {
#define NAME(name, kinds) #name,
    KERNELS(NAME)
};
static const char *const kinds_of[] = {
#define KINDS(name, kinds) kinds,
    KERNELS(KINDS)
};
static PyMethodDef methods[N_KERNELS];
static const Target *target;

static int is_array(char kind)
{
    return kind != 'i' && kind != 'f';
}

/* The buffer of an array of this kind; 0 and an exception if it is something else. */
static int take_array(PyObject *object, char kind, Py_buffer *view, Argument *argument)
{
    const int write = kind == 'D' || kind == 'S' ? PyBUF_WRITABLE : 0;
    if (PyObject_GetBuffer(object, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | write))
        return 0;
    const char *format = view->format ? view->format : "B", letter = format[0] == '=' ? format[1] : format[0];
    const int is_single = kind == 's' || kind == 'S';
    const int fits = kind == 'n' ? view->itemsize == 8 && (letter == 'l' || letter == 'q')
        : kind == 'b'            ? letter == '?'
                                 : letter == (is_single ? 'f' : 'd');
    if (!fits || view->ndim > 3) {
        const char *wanted = kind == 'n' ? "int64" : kind == 'b' ? "bool" : is_single ? "float32" : "float64";
        PyErr_Format(PyExc_TypeError, "an array of %s with up to three dimensions was expected, got format '%s', %d",
                     wanted, format, view->ndim);
        PyBuffer_Release(view);
        return 0;
    }
    argument->d = view->buf;
    for (int k = 0; k < 3; k++)
        argument->shape[k] = k < view->ndim ? view->shape[k] : 1;
    return 1;
}

/* The value of an argument; 0 and an exception if it is something else. */
static int take(PyObject *object, char kind, Py_buffer *view, Argument *argument)
{
    if (is_array(kind))
        return take_array(object, kind, view, argument);
    if (kind == 'i')
        argument->i = PyLong_AsLongLong(object);
    else
        argument->f = PyFloat_AsDouble(object);
    return !PyErr_Occurred();
}

/* Call kernel number `self`; False if it found a matrix not definite, or an index not inside it. */
static PyObject *call(PyObject *self, PyObject *const *given, Py_ssize_t n_given)
{
    const long which = PyLong_AsLong(self);
    const char *kinds = kinds_of[which];
    const Py_ssize_t n = (Py_ssize_t)strlen(kinds);
    Argument argument[MOST_ARGUMENTS];
    Py_buffer view[MOST_ARGUMENTS];
    Py_ssize_t taken = 0;
    int result = DONE;
    if (n_given != n)
        return PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", names[which], n, n_given);
    while (taken < n && take(given[taken], kinds[taken], &view[taken], &argument[taken]))
        taken++;
    if (taken == n) {
        Kernel *kernel = target->kernel[which];
        Py_BEGIN_ALLOW_THREADS
        result = kernel(argument);
        Py_END_ALLOW_THREADS
    }
    const int failed = taken < n;
    while (taken-- > 0)
        if (is_array(kinds[taken]))
            PyBuffer_Release(&view[taken]);
    if (failed)
        return NULL;
    return result == NO_MEMORY ? PyErr_NoMemory() : PyBool_FromLong(result == DONE);
}

static int supported(const char *name)
{
#ifdef X86_TARGETS
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
        && __builtin_cpu_supports("bmi2");
    if (!strcmp(name, "avx2"))
        return avx2;
    if (!strcmp(name, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd");
#endif
    return !strcmp(name, "base");
}

static const Target *const targets[] = {
#ifdef X86_TARGETS
    &avx512_target, &avx2_target,
#endif
    &base_target};
enum { N_TARGETS = sizeof(targets) / sizeof(targets[0]) };

static PyObject *select_target(PyObject *self, PyObject *name)
{
    (void)self;
    const char *wanted = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    if (!wanted && !PyErr_Occurred())
        return PyErr_Format(PyExc_TypeError, "name must be one of those in targets(), got %R", name);
    for (int k = 0; wanted && k < N_TARGETS; k++)
        if (!strcmp(targets[k]->name, wanted) && supported(wanted)) {
            const char *before = target->name;
            target = targets[k];
            return PyUnicode_FromString(before);
        }
    return wanted ? PyErr_Format(PyExc_ValueError, "this processor or build has no kernels '%s'", wanted) : NULL;
}

static PyObject *list_targets(PyObject *self, PyObject *nothing)
{
    (void)self, (void)nothing;
    PyObject *list = PyList_New(0);
    for (int k = 0; list && k < N_TARGETS; k++)
        if (supported(targets[k]->name)) {
            PyObject *name = PyUnicode_FromString(targets[k]->name);
            if (!name || PyList_Append(list, name))
                Py_CLEAR(list);
            Py_XDECREF(name);
        }
    return list;
}

static PyMethodDef functions[] = {
    {"select_target", select_target, METH_O, "Use the kernels for this kind of processor; returns the name of those used before."},
    {"targets", list_targets, METH_NOARGS, "Kinds of processor whose kernels can run here, the fastest first."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", "The compiled kernels.", -1, functions,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (!module)
        return NULL;
    for (int k = 0; k < N_TARGETS && !target; k++)
        if (supported(targets[k]->name))
            target = targets[k];
    for (long k = 0; k < N_KERNELS; k++) {
        methods[k].ml_name = names[k];
        methods[k].ml_meth = (PyCFunction)(void (*)(void))call;
        methods[k].ml_flags = METH_FASTCALL;
        PyObject *number = PyLong_FromLong(k), *function = number ? PyCFunction_New(&methods[k], number) : NULL;
        Py_XDECREF(number);
        if (!function || PyModule_AddObjectRef(module, names[k], function)) {
            Py_XDECREF(function);
            Py_DECREF(module);
            return NULL;
        }
        Py_DECREF(function);
    }
    PyObject *depth = PyFloat_FromDouble(MAX_DEPTH);
    const int failed = !depth || PyModule_AddObjectRef(module, "MAX_DEPTH", depth)
        || PyModule_AddIntMacro(module, PAD) || PyModule_AddIntMacro(module, TILE)
        || PyModule_AddIntMacro(module, POWERS) || PyModule_AddIntMacro(module, TERMS)
        || PyModule_AddIntMacro(module, DERIVATIVES) || PyModule_AddIntMacro(module, ERF_NODES)
        || PyModule_AddIntMacro(module, ERF_TERMS) || PyModule_AddIntMacro(module, ERF_END);
    Py_XDECREF(depth);
    if (failed)
        Py_CLEAR(module);
    return module;
}
