"""STAND-IN for PythonQt: real Qt 6 widgets (PySide6, offscreen) with the manners of Slicer's Qt binding.

Properties are attributes, signals are strings, a slot gets the arguments that the signal's text names. Slicer's own
widgets and its effect adaptor (C++ of the desktop application) are imitated; MRML is real (slicer-core).
"""

import types
import unittest

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets


class PythonQt:
    """One PySide6 object."""

    def __init__(self, wrapped):
        object.__setattr__(self, "wrapped", wrapped)
        object.__setattr__(self, "receivers", {})

    def __getattr__(self, name):
        if self.wrapped.metaObject().indexOfProperty(name) >= 0:
            return self.wrapped.property(name)
        attribute = getattr(self.wrapped, name)

        def method(*arguments):
            return wrapped(attribute(*map(unwrapped, arguments)))

        return method

    def __setattr__(self, name, value):
        assert self.wrapped.metaObject().indexOfProperty(name) >= 0, f"no property {name}"
        self.wrapped.setProperty(name, value)

    def connect(self, signal, slot):
        assert self.wrapped.metaObject().indexOfSignal(signal) >= 0 or "vtkMRMLNode" in signal, f"no signal {signal}"
        name, _, arguments = signal.rstrip(")").partition("(")
        wants = len(arguments.split(",")) if arguments else 0

        def receiver(*sent):
            try:
                slot(*sent[:wants])
            except Exception as error:  # PythonQt prints it and goes on; a test must not
                errors.append(error)
                raise

        getattr(self.wrapped, name).connect(receiver)
        self.receivers[signal, slot] = receiver

    def disconnect(self, signal, slot):
        getattr(self.wrapped, signal.partition("(")[0]).disconnect(self.receivers.pop((signal, slot)))


errors = []
"""What slots raised; the fixture ``desktop`` fails on them."""


def wrapped(value):
    return PythonQt(value) if isinstance(value, QtCore.QObject) else value


def unwrapped(value):
    return value.wrapped if isinstance(value, PythonQt) else value


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """STAND-IN: keeps one node of the scene. As the real one it is no QComboBox: it has only its own methods."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._node, self._look = None, None, QtWidgets.QComboBox()
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._look)
        self._show()

    def setMRMLScene(self, scene):
        self._scene = scene
        scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, self._onRemoved)

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node):
        assert node is None or (self._scene is not None and node.GetScene() is self._scene)
        assert node is None or node.IsA(self.property("nodeTypes")[0])
        if node is not self._node:
            self._node = node
            self._show()
            self.currentNodeChanged.emit(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onRemoved(self, caller, event, node):
        if node is self._node:
            self.setCurrentNode(None)

    def _show(self):
        self._look.clear()
        self._look.addItem(self._node.GetName() if self._node else self.property("noneDisplay") or "None")

    def showEvent(self, event):
        self._show()


class ctkCollapsibleButton(QtWidgets.QFrame):
    """STAND-IN: a frame; its text becomes a dynamic property."""


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """STAND-IN: hides its children while ``collapsed``, whatever they were told."""

    def showEvent(self, event):
        for child in self.findChildren(QtWidgets.QWidget):
            child.setVisible(not self.property("collapsed"))


class qMRMLWidget(QtWidgets.QWidget):
    """STAND-IN: a plain widget."""


def load_ui(path):
    loader = QtUiTools.QUiLoader()
    for widget_class in (qMRMLNodeComboBox, ctkCollapsibleButton, ctkCollapsibleGroupBox, qMRMLWidget):
        loader.registerCustomWidget(widget_class)
    file = QtCore.QFile(path)
    assert file.open(QtCore.QFile.OpenModeFlag.ReadOnly), path
    widget = loader.load(file)
    assert widget is not None, loader.errorString()
    return PythonQt(widget)


def child_widget_variables(panel):
    children = unwrapped(panel).findChildren(QtWidgets.QWidget)
    return types.SimpleNamespace(**{child.objectName(): PythonQt(child) for child in children if child.objectName()})


def qt_module():
    module = types.ModuleType("qt")
    module.Qt, module.QIcon = QtCore.Qt, QtGui.QIcon
    module.QTableWidgetItem, module.QFileDialog = QtWidgets.QTableWidgetItem, QtWidgets.QFileDialog
    module.QLabel = lambda text: PythonQt(QtWidgets.QLabel(text))
    module.QPixmap, module.QColor = QtGui.QPixmap, QtGui.QColor
    module.QTimer = lambda parent=None: PythonQt(QtCore.QTimer(unwrapped(parent)))
    module.QApplication = QtWidgets.QApplication
    return module


class LayoutManager:
    """STAND-IN: one 3D view that counts how often it was centred."""

    threeDViewCount = 1
    centred = 0

    def threeDWidget(self, number):
        return types.SimpleNamespace(threeDView=lambda: types.SimpleNamespace(resetFocalPoint=self._centre))

    def _centre(self):
        LayoutManager.centred += 1


def progress_dialog(**properties):
    """As ``slicer.util.createProgressDialog``."""
    dialog = PythonQt(QtWidgets.QProgressDialog())
    for name, value in properties.items():
        setattr(dialog, name, value)
    return dialog


class AbstractScriptedSegmentEditorEffect:
    """STAND-IN, as the base class in Slicer: it only keeps the adaptor."""

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect


class ScriptedEffect:
    """STAND-IN for qSlicerSegmentEditorScriptedEffect on a real parameter node and the real editor logic."""

    def __init__(self, scene):
        self.name = self.title = ""
        self.perSegment = self.requireSegments = True
        self.effect = None
        self.isActive = False
        self.options = []
        self.node = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(scene)
        self.logic.SetSegmentEditorNode(self.node)
        self.saved = 0

    def setPythonSource(self, effect_class):
        """What the editor does with a clone: defaults first, then the options."""
        self.effect = effect_class(self)
        self.effect.setMRMLDefaults()
        self.effect.setupOptionsFrame()

    def activate(self):
        """The base class shows the parameters before the effect hears of it."""
        self.isActive = True
        self._modified()
        self.effect.activate()

    def deactivate(self):
        self.isActive = False
        self.effect.deactivate()

    def active(self):
        return self.isActive

    def parameterSetNode(self):
        return self.node

    def addOptionsWidget(self, widget):
        self.options.append(widget)

    def parameter(self, name):
        value = self.node.GetAttribute(f"{self.name}.{name}")
        assert value is not None, f"Slicer logs an error: parameter {name} cannot be found"
        return value

    def setParameter(self, name, value):
        assert isinstance(value, str)
        if self.node.GetAttribute(f"{self.name}.{name}") != value:
            self.node.SetAttribute(f"{self.name}.{name}", value)
            self._modified()

    def setParameterDefault(self, name, value):
        if not self.node.GetAttribute(f"{self.name}.{name}"):
            self.setParameter(name, value)

    def nodeReference(self, name):
        return self.node.GetNodeReference(f"{self.name}.{name}")

    def setNodeReference(self, name, node):
        if self.nodeReference(name) is not node:
            self.node.SetNodeReferenceID(f"{self.name}.{name}", node.GetID() if node is not None else None)
            self._modified()

    def saveStateForUndo(self):
        self.saved += 1
        self.logic.SaveStateForUndo()

    def _modified(self):
        """Slicer's editor calls back at once, in the middle of a series of settings too."""
        if self.isActive:
            self.effect.updateGUIFromMRML()


def scripted_loadable_module(scene):
    """STAND-IN for slicer.ScriptedLoadableModule: what the planner's module uses of it."""
    module = types.ModuleType("slicer.ScriptedLoadableModule")

    class ScriptedLoadableModule:
        def __init__(self, parent):
            super().__init__()
            self.parent = parent

    class ScriptedLoadableModuleLogic:
        def getParameterNode(self):
            node = scene.GetFirstNodeByClass("vtkMRMLScriptedModuleNode")
            return node or scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")

    class ScriptedLoadableModuleWidget:
        folder = ""

        def __init__(self, parent=None):
            super().__init__()  # the mixins of subclasses
            self.parent = parent
            self.frame = QtWidgets.QWidget()
            self.layout = PythonQt(QtWidgets.QVBoxLayout(self.frame))
            if parent is None:
                self.setup()

        def setup(self):
            pass

        def resourcePath(self, name):
            return f"{self.folder}/Resources/{name}"

    class ScriptedLoadableModuleTest(unittest.TestCase):
        pass

    for one in (ScriptedLoadableModule, ScriptedLoadableModuleLogic, ScriptedLoadableModuleWidget,
                ScriptedLoadableModuleTest):  # fmt: skip
        setattr(module, one.__name__, one)
    return module


def sample_data_module():
    """STAND-IN for Slicer's Sample Data: takes, keeps and refuses what Slicer 5.10's does."""
    module = types.ModuleType("SampleData")
    sources = {}

    class SampleDataLogic:
        @staticmethod
        def sampleDataSourcesByCategory(category=None):
            return sources.get(category, [])

        @staticmethod
        def registerCustomSampleDataSource(category="Custom", sampleName=None, uris=None, fileNames=None,
                                           nodeNames=None, customDownloader=None, thumbnailFileName=None):  # fmt: skip
            assert all(isinstance(text, str) for text in (uris, fileNames, nodeNames, thumbnailFileName))
            source = types.SimpleNamespace(
                sampleName=sampleName, customDownloader=customDownloader, thumbnailFileName=thumbnailFileName
            )
            sources.setdefault(category, []).append(source)

    module.SampleDataLogic = SampleDataLogic
    return module
